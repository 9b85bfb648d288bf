"""Training runs in a folder: curves, samples over steps, and what differs between their configs."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from phenaki.errors import UserError
from phenaki.reports.compare import differences
from phenaki.train import logs

DEPTH = 3  # folders below the given one
MOST, COMPARED = 200, 12  # runs that are listed, and compared at a time
POINTS, CURVES, SAMPLES = 300, 24, 6


class Runs:
    """The runs below a folder; without one there are none."""

    def __init__(self, directory: Path | None):
        self.directory = directory

    def names(self) -> list[str]:
        """Paths below the folder, in order; links are not followed.

        A run whose name is no UTF-8 is left out, which is logged once: a page cannot ask for it.
        """
        found: list[str] = []
        if self.directory is None:
            return found
        for place, folders, files in os.walk(self.directory):
            below = Path(place).relative_to(self.directory)
            folders.sort()
            if len(below.parts) >= DEPTH:
                folders.clear()
            if {logs.FILE, "config.json"} <= set(files):
                folders.clear()
                if _is_text(str(below)):
                    found.append(str(below))
        return found[:MOST]

    def find(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            UserError: it is none of `names`.
        """
        if name not in self.names():
            raise UserError("there is no such run.")
        assert self.directory is not None
        return self.directory / name

    def compared(self, names: Sequence[str], text: str) -> dict[str, Any]:
        """Curves of metrics with `text` in their name, samples and config differences."""
        if len(names) > COMPARED:
            raise UserError(f"{len(names)} runs: at most {COMPARED} are compared.")
        folders = {name: self.find(name) for name in names}
        curves: dict[str, dict[str, list[list[float]]]] = {}
        for name, folder in folders.items():
            for metric, points in _curves(logs.read(folder), text).items():
                curves.setdefault(metric, {})[name] = points
        return {
            "curves": dict(sorted(curves.items())[:CURVES]),
            "samples": {name: _samples(folder)[-SAMPLES:] for name, folder in folders.items()},
            "differences": differences({name: _config(x) for name, x in folders.items()}),
        }

    def sample(self, name: str, file: str) -> Path:
        """An image of a run's samples.

        Raises:
            UserError: there is none of this name.
        """
        folder = self.find(name)
        if file not in _samples(folder):
            raise UserError("there is no such sample.")
        return folder / "samples" / file


@functools.cache
def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        logging.warning("%r: a run or sample whose name is not UTF-8 is not shown.", name)
        return False
    return True


def _curves(lines: Sequence[dict[str, Any]], text: str) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    for line in lines:
        for metric, value in line.items():
            if metric != "step" and text in metric and isinstance(value, int | float):
                found.setdefault(metric, []).append([float(line["step"]), float(value)])
    finite = {name: [x for x in points if abs(x[1]) < 1e30] for name, points in found.items()}
    return {name: _thinned(points) for name, points in finite.items() if points}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    """At most about `POINTS` of them, the last one included."""
    return points[:: max(1, len(points) // POINTS)][:-1] + points[-1:]


def _samples(folder: Path) -> list[str]:
    files = (folder / "samples").glob("*.png")
    found = (x.name for x in files if x.is_file() and not x.is_symlink() and _is_text(x.name))
    return sorted(found, key=_by_number)


def _by_number(name: str) -> tuple[int, str]:
    digits = "".join(x for x in name if x.isdigit())
    return int(digits[:18] or 0), name


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if name != "sums"}
