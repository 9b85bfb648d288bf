"""Files that people upload: decoded in a process of its own, with limits, to a model's size.

OUTPUT/uploads/OWNER/UPLOAD/ has frames.npy and first.png. The uploaded bytes are removed.
"""

import json
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from phenaki.errors import UserError
from phenaki.io import artifacts, media, signatures
from phenaki.types import VideoSpec

EACH = 10  # uploads of one owner; the oldest are removed
SECONDS = 120  # of decoding, by the clock
ID = re.compile(r"[\w-]{8,40}")


class Uploads:
    """The uploads of all owners."""

    def __init__(self, directory: Path):
        self.directory = directory / "uploads"

    def begin(self, owner: str) -> Path:
        """A new folder, into which the bytes are written as `upload`."""
        folder = self.directory / owner / secrets.token_urlsafe(12)
        folder.mkdir(parents=True)
        others = sorted((path for path in folder.parent.iterdir()), key=_age)
        for other in others[: max(0, len(others) - EACH)]:
            shutil.rmtree(other, ignore_errors=True)
        return folder

    def drop(self, folder: Path) -> None:
        """Removes an upload."""
        shutil.rmtree(folder, ignore_errors=True)

    def finish(self, folder: Path, spec: VideoSpec) -> dict[str, Any]:
        """Decodes `upload` of a folder, and returns what a page is told of it.

        Raises:
            UserError: it is no video or image, or cannot be read.
        """
        try:
            told = _decoded(folder / "upload", folder / "frames.npy", spec)
            first = self.frames(folder.parent.name, folder.name)[0]
            media.write_png(folder / "first.png", first)
            (folder / "upload").unlink()
            artifacts.write_json(folder / "upload.json", told)
        except BaseException:
            self.drop(folder)
            raise
        return {"id": folder.name, **told}

    def find(self, owner: str, name: str) -> Path:
        """The folder of an upload.

        Raises:
            UserError: the owner has no such upload.
        """
        folder = self.directory / owner / name
        if not ID.fullmatch(name) or not (folder / "frames.npy").is_file():
            raise UserError("there is no such upload; drop the file again.")
        return folder

    def frames(self, owner: str, name: str) -> UInt8[np.ndarray, "f h w 3"]:
        """The pixels of an upload, at the model's size and rate."""
        return np.load(self.find(owner, name) / "frames.npy", allow_pickle=False)


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _decoded(source: Path, target: Path, spec: VideoSpec) -> dict[str, Any]:
    with source.open("rb") as file:
        if signatures.kind_of_content(signatures.head_of(file), named=False) is None:
            raise UserError("this is no video or image that the studio reads.")
    numbers = [spec.height, spec.width, spec.fps]
    command = [
        sys.executable,
        "-m",
        "phenaki.studio.decode",
        str(source),
        str(target),
        *map(str, numbers),
    ]
    try:
        run = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"this file takes more than {SECONDS} seconds to read.") from None
    lines = run.stdout.decode(errors="replace").splitlines()
    if run.returncode or not lines:
        raise UserError("this file cannot be read: its decoder ended early.")
    told = json.loads(lines[-1])
    if "error" in told:
        raise UserError(f"this file cannot be read: {told['error']}.")
    return told
