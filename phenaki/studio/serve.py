"""Serves the studio on a socket until it is interrupted."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from phenaki.errors import UserError
from phenaki.studio import app, guard
from phenaki.studio.engine import Engine
from phenaki.studio.jobs import Job
from phenaki.studio.rooms import Rooms

ENDING = 2  # seconds that open requests have at the end


@contextlib.contextmanager
def server(
    rooms: Rooms, listening: socket.socket, host: str, password: str | None
) -> Iterator[uvicorn.Server]:
    """A server of `rooms` on a bound socket; loads the model as the first job."""
    port = listening.getsockname()[1]
    application = app.application(rooms, guard.Guard(host, port, password))
    config = uvicorn.Config(
        application,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=ENDING,
        limit_concurrency=200,
        lifespan="off",
    )

    def load(job: Job) -> None:
        job.listen(1)  # whether or not there is a page
        try:
            rooms.engine.load()
        except BaseException:
            running.should_exit = True  # there is nothing to serve
            raise

    running = uvicorn.Server(config)
    rooms.queue.add("", "load", load)
    try:
        yield running
    finally:
        rooms.queue.close()


def serve(
    directory: Path,
    engine: Engine,
    listening: socket.socket,
    host: str,
    password: str | None,
    *,
    disk: int,
    upload: int,
    runs: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        UserError: the model cannot be loaded.
    """
    rooms = Rooms(engine, directory, disk=disk, upload=upload, runs=runs)
    name = f"[{host}]" if ":" in host else host
    with server(rooms, listening, host, password) as running:
        tell(f"studio: http://{name}:{listening.getsockname()[1]}/ (ctrl-C ends it)")
        if not guard.is_loopback(host):
            tell(f"{host}: other machines reach it, with user name studio and the password")
        running.run(sockets=[listening])
    if rooms.engine.failure:
        raise UserError(rooms.engine.failure)
