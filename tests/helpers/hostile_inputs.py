"""Values that cannot be meant, and folders of media with something odd in them."""

import json
import math
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from PIL import Image

from phenaki.data.prepare import run
from phenaki.errors import UserError
from phenaki.io import clean_text
from phenaki.sampling import given, options, seeds
from phenaki.sampling.windows import Scene, windows

DEFAULTS = options.Defaults({"steps": 4, "choice_temperature": 1.0, "guidance": 1.0})
NUMBERS = ("guidance", "choice_temperature", "temperature", "top_p", "critic_noise")


def values() -> Iterator[tuple[str, Callable[[], Any], tuple[str, ...]]]:
    """(name, call that must be refused, words of the line)."""
    for name in NUMBERS:
        for value in (math.nan, math.inf, -math.inf, -1.0 if name != "guidance" else math.nan):
            yield (
                f"{name}={value}",
                lambda name=name, value=value: options.resolve(DEFAULTS, **{name: value}),
                (name,),
            )
    for name, value in (
        ("steps", 0), ("steps", -3), ("steps", 10**6), ("top_k", -1), ("top_p", 1.5),
    ):  # fmt: skip
        yield (
            f"{name}={value}",
            lambda name=name, value=value: options.resolve(DEFAULTS, **{name: value}),
            (name, str(value)),
        )
    spec = tiny.phenaki().spec
    for seconds in (math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300):
        yield (
            f"a scene of {seconds} s",
            lambda seconds=seconds: windows([Scene("a", seconds)], spec, 5),
            ("scene 1",),
        )
    video = np.full((1, 2, 4, 4, 3), 0.5, np.float32)
    for value in (math.nan, math.inf, -0.5, 1.5, 255.0):
        wrong = video.copy()
        wrong[0, 1, 2, 3, 0] = value
        yield f"frames with {value}", lambda wrong=wrong: given.frames(wrong), ("[0, 1]",)
    for dtype in (np.int64, np.uint16, bool, object):
        yield (
            f"frames of {dtype}",
            lambda dtype=dtype: given.frames(video.astype(dtype)),
            ("uint8",),
        )
    for texts in ("a red circle", b"a", [3], [b"a"], [], [["a"]]):
        yield f"prompts={texts!r}", lambda texts=texts: given.prompts(texts), ("prompts",)
    for seed in (-1, 2**64, 2**70):
        yield f"seed={seed}", lambda seed=seed: seeds.root_key(seed), ("seed",)


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save(path)


def _loop(folder: Path) -> None:
    (folder / "b.png").symlink_to(folder / "b.png")


def _loop_of_two(folder: Path) -> None:
    (folder / "b.mp4").symlink_to(folder / "c.mp4")
    (folder / "c.mp4").symlink_to(folder / "b.mp4")


def _itself(folder: Path) -> None:
    (folder / "again").symlink_to(folder)


def _socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket has at most 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("b.mp4")
    finally:
        os.chdir(here)


def _written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _named(name: str) -> Callable[[Path], None]:
    return lambda folder: _image(folder / name)


def _piped(name: str) -> Callable[[Path], None]:
    return lambda folder: os.mkfifo(folder / name)


# What is done to a folder with one good image.
FOLDERS: dict[str, Callable[[Path], None]] = {
    "a link to itself": _loop,
    "two links to each other": _loop_of_two,
    "a link to the folder": _itself,
    "a link to nothing": lambda folder: (folder / "b.mp4").symlink_to(folder / "gone"),
    "a link to a device": lambda folder: (folder / "b.png").symlink_to("/dev/zero"),
    "a link to /proc": lambda folder: (folder / "b.png").symlink_to("/proc/self/mem"),
    "a socket": _socket,
    **{f"a pipe {name}": _piped(name) for name in ("b.mp4", "b.png", "a.txt", "captions.csv")},
    **{
        f"an empty {name}": _written(name, b"")
        for name in ("b.mp4", "b.png", "b.tar", "b.gif", "b.npz", "a.json", "b.tfrecord")
    },
    **{
        f"noise as {name}": _written(name, bytes(range(256)) * 9)
        for name in ("b.mp4", "b.png", "b.webm", "b.tar", "b.parquet", "a.txt", "a.json")
    },
    "a header alone": _written("b.png", b"\x89PNG\r\n\x1a\n"),
    "a name with a line break": _named("b\nc.png"),
    "a name of dashes": _named("--output=x.png"),
    "a name with brackets": _named("b[1]{2}*?.png"),
    "a name that is no UTF-8": lambda folder: _image(folder / os.fsdecode(b"b\xff.png")),
    "a hidden file": _named(".b.png"),
    "a deep folder": _named("/".join(["d"] * 40) + "/b.png"),
    "a long caption": _written("a.txt", b"word " * 200_000),
    "a caption of nulls": _written("a.txt", bytes(999)),
    "a report of a file": _written("report.json", json.dumps([1]).encode()),
}


def prepared(root: Path, make: Callable[[Path], Any]) -> str:
    """What is wrong with a data set of a good image and what `make` adds."""
    _image(root / "in" / "a.png")
    make(root / "in")
    size = dict(height=16, width=16, validation=0.0)
    try:
        report = run.prepare(run.PrepareOptions(root / "in", root / "set", **size))
    except UserError as error:  # next to a container loose files are not read, which is a line
        line = str(error)
        return "" if "a.png: next to the containers: not read" in line else line
    except BaseException as error:
        return f"{type(error).__name__}: {clean_text.clean(str(error))}"
    found = report["files"]
    if not sum(report["clips"].values()):
        return "the good image is lost"
    if found["found"] != found["read"] + found["skipped"]:
        return f"not all is counted: {found}"
    entries = report["skipped"] + report["problems"]
    return "" if all(entry["reason"] for entry in entries) else "skipped without a reason"
