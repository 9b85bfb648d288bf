"""Decodes raw media into per-unit spool files; an unreadable item is skipped and reported."""

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phenaki.data.format import ClipFormat, ClipRecord, encode
from phenaki.data.prepare import frames, spool, video, workers
from phenaki.data.prepare.filters import Filters
from phenaki.data.prepare.items import FrameSequence, RawItem, Skipped, WorkUnit, open_media
from phenaki.data.prepare.spool import ItemResult, UnitResult
from phenaki.io import artifacts
from phenaki.io.images import UnreadableMedia


@dataclasses.dataclass(frozen=True)
class Job:
    """How every item is decoded. `limit` is the maximum number of clips per item; None for all."""

    form: ClipFormat
    quality: int
    limit: int | None
    filters: Filters
    spool: Path

    def name(self, unit: WorkUnit) -> str:
        """Name of the unit's spool file; depends on everything that its clips depend on."""
        how = repr(dataclasses.replace(self, spool=Path()))
        return hashlib.sha256(f"{how}\n{unit.fingerprint()}".encode()).hexdigest()[:32]


def decode_unit(unit: WorkUnit, job: Job) -> UnitResult:
    """Decodes a unit into its spool file, unless an earlier run has done so.

    Clips are kept on disk: an hour of video takes no more memory than a second. If an item turns
    out to be corrupt, its clips are removed.
    """
    clips = spool.path(job.spool, job.name(unit))
    if (done := spool.finished(clips)) is not None:
        return done
    began = time.perf_counter()
    results, problems = _UniqueResults(), []
    with artifacts.atomic(clips) as partial, partial.open("wb") as file:
        for item in unit:
            workers.heartbeat()
            if isinstance(item, Skipped):
                problems.append(item)
            else:
                results.add(_decode(item, file, job))
    workers.heartbeat(0)
    return spool.finish(clips, results.all, problems, time.perf_counter() - began)


def retry_items(unit: WorkUnit, job: Job) -> UnitResult:
    """Decodes each item of a unit in a process of its own, after one of them crashed or hung."""
    results = _UniqueResults()
    problems: list[Skipped] = []
    clips = spool.path(job.spool, job.name(unit))
    with artifacts.atomic(clips) as partial, partial.open("wb") as file:
        if len(unit.items) == 1:
            (item,) = unit.items
            results.add(ItemResult(item.key, item.kind, reason="the decoder crashed or hung"))
        else:
            for done in _decode_apart(unit, job):
                problems += done.problems
                for result in done.items:
                    results.add(_shifted(result, file.tell()))
                with done.clips.open("rb") as taken:
                    shutil.copyfileobj(taken, file)
    return spool.finish(clips, results.all, problems, 0.0)


class _UniqueResults:
    """The results of a unit; of several items with the same key the first readable one is kept.

    Keys of different units differ: those of a container begin with its name.
    """

    def __init__(self) -> None:
        self.all: list[ItemResult] = []
        self._used: set[str] = set()

    def add(self, result: ItemResult) -> None:
        if result.reason is None and result.key in self._used:
            result = dataclasses.replace(result, clips=(), static=0, reason="second of this name")
        elif result.reason is None:
            self._used.add(result.key)
        self.all.append(result)


def _decode_apart(unit: WorkUnit, job: Job) -> Iterator[UnitResult]:
    """The items of a unit as units of their own, a few in memory at a time."""
    items = iter(unit)
    while few := list(itertools.islice(items, 16)):
        problems = tuple(item for item in few if isinstance(item, Skipped))
        yield UnitResult(Path(os.devnull), (), problems, 0.0)
        alone = [WorkUnit(item.key, (item,)) for item in few if isinstance(item, RawItem)]
        decode, retry = (functools.partial(f, job=job) for f in (decode_unit, retry_items))
        yield from workers.run(decode, alone, 2, retry)


def _shifted(result: ItemResult, by: int) -> ItemResult:
    places = tuple((offset + by, size) for offset, size in result.clips)
    return dataclasses.replace(result, clips=places)


def _decode(item: RawItem, file: io.BufferedIOBase, job: Job) -> ItemResult:
    """Appends the clips of an item to `file`."""
    reason = job.filters.item(item)
    places: list[tuple[int, int]] = []
    kind, static, digest = item.kind, 0, ""
    begin = file.tell()
    try:
        if reason is None:
            digest = sha256(item)
            for clip in _clips(item, job):
                workers.heartbeat()
                kind = "image" if len(clip.video) == 1 else "video"
                if not job.filters.keeps(clip.video):
                    static += 1
                    continue
                at = file.tell()
                pickle.dump(_record(item, clip, digest, len(places) + static, job), file)
                places.append((at, file.tell() - at))
            if static and not places:
                reason = f"near-static: each of its {static} clips"
    except UnreadableMedia as error:
        reason = error.reason
    if reason is not None:
        file.seek(begin)
        file.truncate()
        places, static = [], 0
    captioned = item.caption is not None
    return ItemResult(item.key, kind, captioned, item.split, digest, tuple(places), static, reason)


def sha256(item: RawItem) -> str:
    """Hash of the bytes of the media, wherever they are.

    Raises:
        UnreadableMedia: cannot be read.
    """
    try:
        if isinstance(item.media, FrameSequence):
            return frames.sha256(item.media)
        with open_media(item.media) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableMedia(item.key, f"not readable: {error.strerror}") from error


def _clips(item: RawItem, job: Job) -> Iterator[video.Clip]:
    form = job.form
    size: Any = dict(height=form.height, width=form.width)
    time: Any = dict(frames=form.frames, fps=form.fps)
    if isinstance(item.media, FrameSequence):
        yield from itertools.islice(frames.clips(item.media, **time, **size), job.limit)
        return
    # FFmpeg and Pillow get bytes and never a name, which could make them open other files.
    with open_media(item.media) as file:
        clips = video.clips(file, guess=item.kind, **time, **size)
        yield from itertools.islice(clips, job.limit)


def _record(item: RawItem, clip: video.Clip, digest: str, number: int, job: Job) -> ClipRecord:
    is_image = len(clip.video) == 1
    return ClipRecord(
        key=item.key if is_image else f"{item.key}#{number:05d}",
        frames=encode(clip.video, job.form.encoding, job.quality),
        caption=item.caption,
        source=item.key,
        source_sha256=digest,
        source_size=clip.source_size,
        start=clip.start,
        fps=0.0 if is_image else job.form.fps,
        source_fps=clip.source_fps,
    )
