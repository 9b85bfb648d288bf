"""Takes on disk: films with how each was made, of one owner each, within a limit of bytes.

OUTPUT/takes/OWNER/TAKE/ has film.mp4, take.json and frames.npy, and original.mp4 of a
reconstruction. Where the limit is reached, the oldest takes that are not kept are removed.
"""

import re
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from phenaki.errors import UserError
from phenaki.io import artifacts, media

SERVED = {"film.mp4": "video/mp4", "original.mp4": "video/mp4", "take.json": "application/json"}
ID = re.compile(r"[\w-]{8,40}")
EACH = 60  # takes of one owner that are not kept


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # another thread removes it
            continue
    return total


class Takes:
    """The takes of all owners."""

    def __init__(self, directory: Path, limit: int):
        """`limit` is what `directory` may have in bytes, stories and uploads included."""
        self.directory, self.limit = directory, limit
        self._lock = threading.Lock()

    def add(
        self,
        owner: str,
        frames: UInt8[np.ndarray, "f h w 3"],
        fps: float,
        facts: Mapping[str, Any],
        original: UInt8[np.ndarray, "f h w 3"] | None = None,
    ) -> dict[str, Any]:
        """Writes a take, and returns what a page is told of it.

        Raises:
            UserError: there is no room, and all takes are kept.
        """
        name = secrets.token_urlsafe(12)
        folder = self._folder(owner) / name
        with self._lock:
            self._make_room(owner)
            folder.mkdir(parents=True)
            scale = media.scale_to_see(*frames.shape[1:3])
            media.write_mp4(folder / "film.mp4", frames, fps, scale, facts)
            if original is not None:
                media.write_mp4(folder / "original.mp4", original, fps, scale)
            np.save(folder / "frames.npy", frames)
            height, width = frames.shape[1:3]
            shape = dict(frames=len(frames), fps=fps, width=width, height=height)
            own = dict(made=time.time(), kept=False, original=original is not None)
            artifacts.write_json(folder / "take.json", {**own, **shape, "facts": dict(facts)})
        return self._told(folder)

    def of(self, owner: str) -> list[dict[str, Any]]:
        """The takes of an owner, the newest first."""
        with self._lock:
            found = [self._told(folder) for folder in self._all(self._folder(owner))]
        return sorted(found, key=lambda take: -take["made"])

    def keep(self, owner: str, name: str, kept: bool) -> None:
        """Marks a take as kept, or no more.

        Raises:
            UserError: there is no such take.
        """
        with self._lock:
            folder = self.find(owner, name)
            content = artifacts.read_dict(folder / "take.json")
            artifacts.write_json(folder / "take.json", content | {"kept": kept})

    def remove(self, owner: str, name: str) -> None:
        """Removes a take."""
        with self._lock:
            shutil.rmtree(self.find(owner, name))

    def find(self, owner: str, name: str) -> Path:
        """The folder of a take.

        Raises:
            UserError: the owner has no such take.
        """
        folder = self._folder(owner) / name
        if not ID.fullmatch(name) or not (folder / "take.json").is_file():
            raise UserError("there is no such take.")
        return folder

    def frames(self, owner: str, name: str) -> UInt8[np.ndarray, "f h w 3"]:
        """The pixels of a take."""
        return np.load(self.find(owner, name) / "frames.npy", allow_pickle=False)

    def check_room(self) -> None:
        """Raises `UserError` if there is no room for more than takes."""
        with self._lock:
            self._make_room(None)

    def _folder(self, owner: str) -> Path:
        return self.directory / "takes" / owner

    def _all(self, folder: Path) -> list[Path]:
        found = folder.glob("*/take.json")
        return [path.parent for path in found if artifacts.marked(path) is not None]

    def _told(self, folder: Path) -> dict[str, Any]:
        return {"id": folder.name, **artifacts.read_dict(folder / "take.json")}

    def _make_room(self, owner: str | None) -> None:
        """Removes the oldest takes that are not kept: of `owner`, or of all if the disk is full."""
        if owner is not None:
            own = [folder for folder in self._all(self._folder(owner)) if not self._is_kept(folder)]
            for folder in sorted(own, key=_age)[: max(0, len(own) + 1 - EACH)]:
                shutil.rmtree(folder)
        if size_of(self.directory) < self.limit:
            return
        owners = self.directory.glob("takes/*")
        there = [folder for each in owners for folder in self._all(each)]
        for folder in sorted((x for x in there if not self._is_kept(x)), key=_age):
            shutil.rmtree(folder)
            if size_of(self.directory) < self.limit:
                return
        raise UserError(
            f"the studio's folder has {size_of(self.directory) / 1e6:.0f} MB of "
            f"{self.limit / 1e6:.0f} (--disk_mb): remove takes that are kept, or stories."
        )

    def _is_kept(self, folder: Path) -> bool:
        return bool(self._told(folder)["kept"])


def _age(folder: Path) -> float:
    return (folder / "take.json").stat().st_mtime
