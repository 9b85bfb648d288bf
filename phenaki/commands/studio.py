"""Opens a page in the browser where prompts become films: the studio.

    phenaki studio --model=laptop
    phenaki studio --model=runs/maskgit --runs=runs --output=films --port=8080

The page is at 127.0.0.1, for this machine alone; nothing outside is contacted. --host opens it to
others and needs a password (user name "studio"): without encryption, for networks that you trust.
Films, uploads and stories are in --output, each browser's apart. Needs the extra "studio".
"""

import os
import socket

from absl import flags

from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import outputs, paths, shipped

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string(
    "model",
    None,
    "a bundle, the --workdir of train_maskgit.py, or laptop or shapes64, as released",
    required=True,
)
CRITIC = flags.DEFINE_string("critic", None, "the --workdir of train_critic.py")
STUDENT = flags.DEFINE_string("student", None, "the --output of train_student.py")
OUTPUT = flags.DEFINE_string("output", "studio", "folder of films, uploads and stories")
RUNS = flags.DEFINE_string("runs", None, "a folder of training runs, to compare them")
HOST = flags.DEFINE_string("host", "127.0.0.1", "the address that it listens on")
PORT = flags.DEFINE_integer("port", 7860, "0: any that is free", lower_bound=0, upper_bound=65535)
PASSWORD = flags.DEFINE_string(
    "password", None, "asked for by the page; default: $STUDIO_PASSWORD, which ps does not show"
)
DISK_MB = flags.DEFINE_integer("disk_mb", 2000, "most that --output may have", lower_bound=10)
UPLOAD_MB = flags.DEFINE_integer("upload_mb", 64, "most that a file may have", lower_bound=1)


def main(argv):
    """Serves until it is interrupted."""
    del argv
    try:
        from phenaki.studio import engine, guard, serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UserError(f'{error.name} is missing: pip install "phenaki[studio]".') from None
    password = PASSWORD.value or os.environ.get("STUDIO_PASSWORD")
    guard.check_host(HOST.value, password)
    model = shipped.find(MODEL.value, shipped.MODELS)
    networks = {"critic": CRITIC.value, "student": STUDENT.value}
    inputs = [("model", model), *networks.items(), ("runs", RUNS.value)]
    if paths.is_remote(OUTPUT.value):
        raise UserError(f"--output={OUTPUT.value}: must be a folder of this machine.")
    with outputs.claimed("output", OUTPUT.value, "studio", inputs) as claim:
        runs = None if RUNS.value is None else paths.path(RUNS.value)
        if runs is not None and not runs.is_dir():
            raise UserError(f"--runs={RUNS.value}: is no folder.")
        listening = _listen(HOST.value, PORT.value)
        serve.serve(
            claim.directory.resolve(),
            engine.Engine(model, **networks),
            listening,
            HOST.value,
            password,
            disk=DISK_MB.value * 10**6,
            upload=UPLOAD_MB.value * 10**6,
            runs=runs,
            tell=lambda line: print(line, flush=True),
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen(128)  # before the address is told: a page that is opened at once waits
    except OSError as error:
        line = f"--host={host} --port={port}: {error.strerror or error}"
        raise UserError(f"{line}; --port=0 takes any that is free.") from None
    return listening
