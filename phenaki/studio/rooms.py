"""What the studio has: model, queue, takes, uploads and stories, and their limits."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from phenaki.errors import UserError
from phenaki.studio.engine import Engine, strip
from phenaki.studio.jobs import Queue
from phenaki.studio.runs import Runs
from phenaki.studio.stories import Stories
from phenaki.studio.takes import Takes
from phenaki.studio.uploads import Uploads

DECODED = 2  # uploads at a time


class Rooms:
    """The parts of a studio in one folder."""

    def __init__(
        self, engine: Engine, directory: Path, *, disk: int, upload: int, runs: Path | None = None
    ):
        """`disk` is what the folder may have, `upload` what a file may have, both in bytes.

        `runs` is a folder of training runs.
        """
        self.engine, self.directory, self.upload_limit = engine, directory, upload
        self.queue = Queue()
        self.takes, self.uploads = Takes(directory, disk), Uploads(directory)
        self.stories, self.runs = Stories(directory, self.uploads), Runs(runs)
        self.decoding = asyncio.Semaphore(DECODED)

    def limits(self) -> dict[str, Any]:
        """What a page is told of them."""
        return {"upload_mb": self.upload_limit / 1e6, "runs": self.runs.directory is not None}

    def source(self, owner: str, form: Mapping[str, Any]) -> UInt8[np.ndarray, "f h w 3"]:
        """The pixels of a form's `upload`, or of its `take`.

        Raises:
            UserError: the owner has none of this id.
        """
        for name, frames in (("upload", self.uploads.frames), ("take", self.takes.frames)):
            if isinstance(form, dict) and isinstance(form.get(name), str):
                return frames(owner, form[name])
        raise UserError("drop a video first, or choose a take.")

    def strip(self, owner: str, form: Mapping[str, Any]) -> dict[str, Any]:
        """The frames of the first clip of a source, in one row."""
        return strip(self.source(owner, form)[: self.engine.spec.frames])
