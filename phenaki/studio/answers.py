"""Parts of answers that all pages share: whose request it is, its form, jobs, files, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse

from phenaki.studio import guard, jobs
from phenaki.studio.rooms import Rooms

FORM = 2**21  # bytes of JSON


class Refused(Exception):
    """A request that is answered with a status and one sentence."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


def rooms_of(request: Request) -> Rooms:
    """What the studio has."""
    return request.app.state.rooms


def owner_of(request: Request) -> str:
    """Whose request it is."""
    return guard.owner_of(request.state.token)


def whose(request: Request) -> tuple[Rooms, str]:
    """Both."""
    return rooms_of(request), owner_of(request)


async def sent_form(request: Request) -> Any:
    """The JSON of a request, of bounded size."""
    try:
        return json.loads(await _read(request, FORM))
    except (ValueError, RecursionError):  # the second where it is nested too deeply
        raise Refused(400, "the form is not JSON.") from None


async def _read(request: Request, most: int) -> bytes:
    parts, count = [], 0
    async for part in request.stream():
        count += len(part)
        if count > most:
            raise Refused(413, f"more than {most / 1e6:.0f} MB are not taken.")
        parts.append(part)
    return b"".join(parts)


def started(
    request: Request, kind: str, work: Callable[[jobs.Job], Any], about: str = ""
) -> JSONResponse:
    """Queues `work`, and tells its job; `about` is the story that it makes."""
    job = rooms_of(request).queue.add(owner_of(request), kind, work, about)
    return JSONResponse(job.snapshot())


def served(path: Path, kind: str, download: bool = False) -> FileResponse:
    """A file of the studio's folder, in parts where a player asks for them."""
    if not path.is_file():
        raise Refused(404, "there is no such file.")
    name = path.name if download else None
    return FileResponse(path, media_type=kind, filename=name)
