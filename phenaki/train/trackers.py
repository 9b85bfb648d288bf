"""Metrics of a run to Weights & Biases or Trackio, next to the files that it writes anyway."""

import importlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from phenaki.errors import UserError, one_of
from phenaki.io import artifacts, paths
from phenaki.io.paths import AnyPath

FILE = "track.json"  # {library: id}, with which a resumed run is the same there
NAMES = {"wandb": "wandb", "trackio": "trackio"}  # --track: the package to install
PROJECT = "phenaki"


def library(name: str) -> ModuleType:
    """The library of `NAMES`, for a check before a run is made in its folder.

    Raises:
        UserError: it is none of them, or not installed.
    """
    one_of("--track", name, NAMES)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"--track={name}: needs pip install {NAMES[name]}.") from error


class Tracker:
    """A run at one of `NAMES`, whose libraries have the same functions.

    Wherever they send or keep it is their own setting, such as WANDB_MODE=offline. A step that was
    logged before, as after a roll-back, is theirs to keep or drop.

    Raises:
        UserError: the library is not installed, or refuses.
    """

    def __init__(self, name: str, workdir: AnyPath, fields: Mapping[str, Any]):
        self._library: Any = library(name)
        known = artifacts.marked(workdir / FILE) or {}
        identity = known.get(name) or secrets.token_hex(4)
        if name not in known:
            paths.path(workdir).mkdir(parents=True, exist_ok=True)
            artifacts.write_json(workdir / FILE, {**known, name: identity})
        options: dict[str, Any] = {"name": f"{workdir.name}-{identity}"}
        if name == "wandb":
            options = {"id": identity, "name": workdir.name}
            if isinstance(workdir, Path):
                options["dir"] = str(workdir)
        plain = json.loads(json.dumps(fields))
        try:
            self._library.init(project=PROJECT, config=plain, resume="allow", **options)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--track={name}: cannot start: {reason}") from error

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Sends the metrics of a step."""
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._library.finish()
