"""The pages of the studio and what they ask for, as an ASGI application."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phenaki.errors import UserError
from phenaki.studio import answers, clips, forms, guard, jobs, run_pages, story_pages, takes
from phenaki.studio.rooms import Rooms

PAGE = Path(__file__).with_name("page")
FILES = {path.name: path for path in PAGE.iterdir()}
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLL = 0.1  # seconds between looks at a job
BEAT = 5.0  # seconds between signs of life, which find pages that were closed


def application(rooms: Rooms, watch: guard.Guard) -> ASGIApp:
    """The application; `watch` decides who may ask."""
    routes = [
        Route("/", _page),
        Route("/page/{name}", _page),
        Route("/api/info", _info),
        Route("/api/prompt", _prompt, methods=["POST"]),
        Route("/api/paint", _paint, methods=["POST"]),
        Route("/api/reconstruct", _reconstruct, methods=["POST"]),
        Route("/api/uploads", _upload, methods=["POST"]),
        Route("/api/uploads/{id}/strip", _upload_strip),
        Route("/api/jobs/{id}", _job),
        Route("/api/jobs/{id}/cancel", _cancel, methods=["POST"]),
        Route("/api/jobs/{id}/events", _events),
        Route("/api/takes", _takes),
        Route("/api/takes/{id}", _take, methods=["POST", "DELETE"]),
        Route("/takes/{id}/{name}", _take_file),
        *story_pages.ROUTES,
        *run_pages.ROUTES,
    ]
    handlers: Any = {UserError: _mistake, answers.Refused: _refused, jobs.QueueFull: _full}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.rooms, app.state.watch = rooms, watch
    return _Guarded(app, watch)


class _Guarded:
    """Refuses what the guard refuses; every answer has its headers, and each browser a cookie."""

    def __init__(self, app: ASGIApp, watch: guard.Guard):
        self.app, self.watch = app, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self.watch.refusal(request.method, request.headers)
        token = request.cookies.get(self.watch.cookie, "")
        is_new = len(token) < 16
        scope["state"] = {**scope.get("state", {}), "token": guard.new_token() if is_new else token}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = dict(guard.HEADERS)
                if is_new and not refusal:
                    value = f"{scope['state']['token']}; HttpOnly; SameSite=Strict; Path=/"
                    own["set-cookie"] = f"{self.watch.cookie}={value}"
                if refusal and refusal[0] == 401:
                    own["www-authenticate"] = 'Basic realm="studio", charset="UTF-8"'
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in own.items()),
                ]
            await send(message)

        if refusal:
            if refusal[0] == 401 and "authorization" in request.headers:
                await asyncio.sleep(1)  # guesses take their time
            response = JSONResponse({"error": refusal[1]}, refusal[0])
            await response(scope, receive, answer)
            return
        await self.app(scope, receive, answer)


async def _mistake(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 400)


async def _full(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 429)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, answers.Refused)
    return JSONResponse({"error": str(error)}, error.status)


async def _page(request: Request) -> Any:
    path = FILES.get(request.path_params.get("name", "index.html"))
    if path is None:
        return PlainTextResponse("not found", 404)
    return FileResponse(path, media_type=TYPES[path.suffix])


async def _info(request: Request) -> JSONResponse:
    rooms = answers.rooms_of(request)
    return JSONResponse({**rooms.engine.info(), "waiting": rooms.queue.busy(), **rooms.limits()})


async def _prompt(request: Request) -> JSONResponse:
    rooms, prompt = answers.rooms_of(request), forms.prompt(await answers.sent_form(request))
    work = clips.of_prompt(rooms.engine, rooms.takes, answers.owner_of(request), prompt)
    return answers.started(request, "prompt", work)


async def _paint(request: Request) -> JSONResponse:
    rooms, owner, form = (
        answers.rooms_of(request),
        answers.owner_of(request),
        await answers.sent_form(request),
    )
    prompt = forms.prompt(form)

    def prepared() -> Any:
        spec = rooms.engine.spec
        frames = rooms.source(owner, form)[: spec.frames]
        painted = forms.mask(form, spec, len(frames))
        return clips.of_paint(rooms.engine, rooms.takes, owner, prompt, frames, painted)

    return answers.started(request, "paint", await run_in_threadpool(prepared))


async def _reconstruct(request: Request) -> JSONResponse:
    rooms, owner, form = (
        answers.rooms_of(request),
        answers.owner_of(request),
        await answers.sent_form(request),
    )
    frames = await run_in_threadpool(rooms.source, owner, form)
    name = (forms.text(form, "name") or "upload")[:100]
    work = clips.of_reconstruction(rooms.engine, rooms.takes, owner, frames, name)
    return answers.started(request, "reconstruct", work)


async def _upload(request: Request) -> JSONResponse:
    rooms = answers.rooms_of(request)
    async with rooms.decoding:
        await run_in_threadpool(rooms.takes.check_room)
        spec = await run_in_threadpool(lambda: rooms.engine.spec)
        folder = await run_in_threadpool(rooms.uploads.begin, answers.owner_of(request))
        count = 0
        try:
            with (folder / "upload").open("wb") as file:
                async for part in request.stream():
                    count += len(part)
                    if count > rooms.upload_limit:
                        most = f"{rooms.upload_limit / 1e6:.0f} MB"
                        raise answers.Refused(413, f"a file may have {most} at most (--upload_mb).")
                    file.write(part)
        except BaseException:
            rooms.uploads.drop(folder)
            raise
        return JSONResponse(await run_in_threadpool(rooms.uploads.finish, folder, spec))


async def _upload_strip(request: Request) -> JSONResponse:
    rooms, owner, name = (
        answers.rooms_of(request),
        answers.owner_of(request),
        request.path_params["id"],
    )
    return JSONResponse(await run_in_threadpool(rooms.strip, owner, {"upload": name}))


def _found(request: Request) -> jobs.Job:
    job = answers.rooms_of(request).queue.find(answers.owner_of(request), request.path_params["id"])
    if job is None:
        raise answers.Refused(404, "there is no such job.")
    return job


async def _job(request: Request) -> JSONResponse:
    return JSONResponse(_found(request).snapshot())


async def _cancel(request: Request) -> JSONResponse:
    job = _found(request)
    await run_in_threadpool(answers.rooms_of(request).queue.cancel, job)
    return JSONResponse(job.snapshot())


async def _events(request: Request) -> StreamingResponse:
    job = _found(request)

    async def told() -> AsyncIterator[str]:
        job.listen(1)
        try:
            version, quiet = -1, 0.0
            while True:
                over = job.over  # before the snapshot: what is last is told
                if job.version != version or over:
                    snapshot = job.snapshot()
                    version, quiet = snapshot["version"], 0.0
                    yield f"data: {json.dumps(snapshot)}\n\n"
                if over:
                    return
                await asyncio.sleep(POLL)
                quiet += POLL
                if quiet > BEAT:
                    quiet = 0.0
                    yield ": \n\n"
        finally:
            job.listen(-1)

    return StreamingResponse(told(), media_type="text/event-stream")


async def _takes(request: Request) -> JSONResponse:
    rooms, owner = answers.whose(request)
    return JSONResponse(await run_in_threadpool(rooms.takes.of, owner))


async def _take(request: Request) -> JSONResponse:
    rooms, owner, name = (
        answers.rooms_of(request),
        answers.owner_of(request),
        request.path_params["id"],
    )
    if request.method == "DELETE":
        await run_in_threadpool(rooms.takes.remove, owner, name)
        return JSONResponse({})
    form = await answers.sent_form(request)
    kept = isinstance(form, dict) and form.get("kept") is True
    await run_in_threadpool(rooms.takes.keep, owner, name, kept)
    return JSONResponse({"kept": kept})


async def _take_file(request: Request) -> Any:
    rooms, name = answers.rooms_of(request), request.path_params["name"]
    if name == "strip":
        source = {"take": request.path_params["id"]}
        return JSONResponse(await run_in_threadpool(rooms.strip, answers.owner_of(request), source))
    if name not in takes.SERVED:
        raise answers.Refused(404, "there is no such file.")
    try:
        folder = rooms.takes.find(answers.owner_of(request), request.path_params["id"])
    except UserError as error:
        raise answers.Refused(404, str(error)) from None
    return answers.served(folder / name, takes.SERVED[name], "download" in request.query_params)
