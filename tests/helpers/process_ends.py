"""Commands in processes of their own that are interrupted, lose their reader, or lack something."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAN = ("plan", "--config=configs/cvivit.py:demo", "--topology=gpu:1xH100", "--json")
SAMPLE = ("sample", f"--model={ROOT}/checkpoints/laptop", "--prompt=a red circle", "--steps=2")
TRAIN = """
import pathlib, sys, time, toy
from phenaki import cli
counting = toy.counting
toy.counting = lambda taken: (time.sleep(0.05) or batch for batch in counting(taken))
work = pathlib.Path(sys.argv.pop())
cli.run(lambda argv: toy.run(work, steps=9000, save_every=50, log_every=1))
"""  # the smallest training run, slowly
SECONDS = 300
LINE = re.compile(r"(error: .*|interrupted|preempted .*)")


def started(arguments: Sequence[str], before: str = "", **options) -> subprocess.Popen:
    """`phenaki ARGUMENTS`, or Python's own `-c`, after the shell's commands `before`."""
    own = arguments[0] == "-c"
    command = [sys.executable, *(() if own else ("-m", "phenaki.commands.main")), *arguments]
    path = f"{ROOT}:{ROOT}/tests/helpers"
    environment = os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    environment |= options.pop("environment", {})
    if before:
        command = ["bash", "-c", f'{before}; exec "$@"', "bash", *command]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | options
    return subprocess.Popen(command, cwd=ROOT, text=True, env=environment, **streams)


def ended(process: subprocess.Popen, codes: Sequence[int]) -> str:
    """What is wrong with the end of a process: another code, or a traceback."""
    try:
        _, stderr = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"no end after {SECONDS} s"
    # An interrupt within a library that runs code of its own ends Python by the signal: 130, too.
    code = 130 if process.returncode == -signal.SIGINT else process.returncode
    if code not in codes:
        return f"code {process.returncode}: {(stderr or '')[-300:]}"
    if "Traceback" in (stderr or ""):
        return f"a traceback: {stderr[-300:]}"
    if process.returncode and not LINE.search(stderr or ""):
        return f"no line: {stderr!r}"
    return ""


def interrupted(arguments: Sequence[str], seconds: float, number: int, codes: Sequence[int]) -> str:
    """What is wrong with the end of a command that gets a signal after so many seconds."""
    process = started(arguments)
    time.sleep(seconds)
    process.send_signal(number)
    return ended(process, codes)


def stopped(work: Path, number: int, codes: Sequence[int]) -> str:
    """What is wrong with the end of a training run that gets a signal after its first steps."""
    process, end = started(["-c", TRAIN, str(work)]), time.monotonic() + SECONDS
    log = work / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(number)
    if found := ended(process, codes):
        return found
    saved = [path.name for path in (work / "checkpoints").glob("[0-9]*")]
    return "" if saved or number == signal.SIGINT else "no checkpoint is saved"


def lacking(arguments: Sequence[str], before: str, codes: Sequence[int] = (0, 2), **environment):
    """What is wrong with the end of a command on a machine that lacks something."""
    return ended(started(arguments, before, environment=environment), codes)


def unread(arguments: Sequence[str], target: str | None, codes: Sequence[int]) -> str:
    """What is wrong with a command whose output nobody reads, or that goes to `target`."""
    reader, writer = os.pipe()
    os.close(reader)
    out = writer if target is None else os.open(target, os.O_WRONLY)
    try:
        return ended(started(arguments, stdout=out), codes)
    finally:
        for descriptor in {writer, out}:
            os.close(descriptor)


def probes(root: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """(name, what is wrong or "") of every end."""
    # Python itself has no handler in its first tenth of a second.
    for seconds in (0.7, 1.5, 4.0):
        yield (
            f"plan, SIGINT after {seconds} s",
            lambda seconds=seconds: interrupted(PLAN, seconds, signal.SIGINT, (0, 130)),
        )
    for number, codes in (
        (signal.SIGTERM, (143,)),
        (signal.SIGHUP, (143,)),
        (signal.SIGINT, (130,)),
    ):
        yield (
            f"training, {number.name}",
            lambda number=number, codes=codes: stopped(root / number.name, number, codes),
        )
    yield "plan --json, no reader", lambda: unread(PLAN, None, (0,))
    yield "plan --json, full disk", lambda: unread(PLAN, "/dev/full", (2,))
    sample = [*SAMPLE, f"--output={root / 'samples'}"]
    yield "sample, no reader", lambda: unread(sample, None, (0,))
    yield "sample, ulimit -n 64", lambda: lacking(sample, "ulimit -n 64")
    yield "sample, no $HOME", lambda: lacking(sample, "unset HOME", (0,))
    yield "sample, unwritable TMPDIR", lambda: lacking(sample, "true", TMPDIR="/proc/nowhere")
    odd = [*SAMPLE, f"--output={root / 'a b:[c]*?'}"]
    yield "sample, an odd output", lambda: lacking(odd, "true", (0,))
    yield "sample, files of at most 8 kB", lambda: lacking(sample, "ulimit -f 8", (0, 2))
