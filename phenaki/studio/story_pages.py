"""What the page of stories asks for."""

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from phenaki.errors import UserError
from phenaki.studio import answers, forms, stories, story_jobs


def _folder(request: Request) -> Path:
    return answers.rooms_of(request).stories.find(
        answers.owner_of(request), request.path_params["id"]
    )


async def _all(request: Request) -> JSONResponse:
    rooms, owner = answers.whose(request)
    if request.method == "GET":
        return JSONResponse(await run_in_threadpool(rooms.stories.of, owner))
    form = await answers.sent_form(request)

    def added() -> dict[str, Any]:
        rooms.takes.check_room()
        return rooms.stories.told(rooms.stories.add(owner, form))

    return JSONResponse(await run_in_threadpool(added))


async def _one(request: Request) -> JSONResponse:
    rooms, folder = answers.rooms_of(request), _folder(request)
    if request.method == "DELETE":
        if rooms.queue.makes(folder.name):
            raise answers.Refused(409, "this story is being made: cancel that first.")
        await run_in_threadpool(rooms.stories.remove, folder)
        return JSONResponse({})
    return JSONResponse(await run_in_threadpool(rooms.stories.told, folder))


async def _change(request: Request) -> JSONResponse:
    """Saves a story's form, and then does what the path names."""
    (rooms, owner), folder = answers.whose(request), _folder(request)
    form, what = await answers.sent_form(request), request.path_params["what"]

    def changed() -> dict[str, Any]:
        nonlocal folder
        if what == "undo":
            rooms.stories.undo(folder)
            return rooms.stories.told(folder)
        rooms.stories.change(owner, folder, form.get("form") if isinstance(form, dict) else None)
        if what == "branch":
            rooms.takes.check_room()
            folder = rooms.stories.branch(owner, folder)
        if what == "reroll":
            scene = forms.whole(form, "scene", 1, stories.SCENES) or 1
            rooms.stories.reroll(folder, scene, rooms.engine)
        return rooms.stories.told(folder)

    if what not in ("save", "undo", "branch", "reroll", "render", "preview"):
        raise answers.Refused(404, "stories have no such action.")
    told = await run_in_threadpool(changed)
    if what not in ("render", "preview", "reroll"):
        return JSONResponse(told)
    await run_in_threadpool(rooms.takes.check_room)
    work = story_jobs.of_story(rooms.engine, rooms.stories, folder, preview=what == "preview")
    return answers.started(request, "story", work, about=folder.name)


async def _file(request: Request) -> Response:
    name, download = request.path_params["name"], "download" in request.query_params
    try:
        folder = _folder(request)
    except UserError as error:
        raise answers.Refused(404, str(error)) from None
    if name == "story.yaml":
        return answers.served(folder / name, "text/yaml; charset=utf-8", download)
    if name == "preview.mp4":
        return answers.served(folder / "film/preview/story.mp4", "video/mp4", download)
    if name in stories.FILES:
        return answers.served(folder / "film" / name, stories.FILES[name], download)
    raise answers.Refused(404, "there is no such file.")


ROUTES = [
    Route("/api/stories", _all, methods=["GET", "POST"]),
    Route("/api/stories/{id}", _one, methods=["GET", "DELETE"]),
    Route("/api/stories/{id}/{what}", _change, methods=["POST"]),
    Route("/stories/{id}/{name}", _file),
]
