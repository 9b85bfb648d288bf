"""Decodes the items of an inventory without writing a data set."""

import io
import pickle
from pathlib import Path

import numpy as np
from numbered_clips import read_number
from PIL import Image

from phenaki.data import format
from phenaki.data.prepare import ingest
from phenaki.data.prepare.filters import Filters
from phenaki.data.prepare.items import Inventory

FRAMES = 3  # of a clip


def job(folder: Path, fps: float = 8.0, limit: int | None = None) -> ingest.Job:
    """Clips of 48x64 pixels, spooled to `folder`; an `fps` of 0 is that of each source."""
    form = format.ClipFormat(FRAMES, fps, 48, 64, "png")
    return ingest.Job(form, 95, limit, Filters(), folder)


def decode(found: Inventory, folder: Path, **changes):
    """({key: ClipRecord}, {key: reason}) of all clips and all skipped items."""
    folder.mkdir(exist_ok=True)
    clips, reasons = {}, {}
    for unit in found.units:
        done = ingest.decode_unit(unit, job(folder, **changes))
        content = done.clips.read_bytes()
        for item in done.items:
            if item.reason:
                reasons[item.key] = item.reason
            for offset, size in item.clips:
                record = pickle.loads(content[offset : offset + size])
                clips[record.key] = record
    return clips, reasons


def numbers(record: format.ClipRecord) -> list[int]:
    """The numbers that the frames of a clip show."""
    return [read_number(np.asarray(Image.open(io.BytesIO(frame)))) for frame in record.frames]
