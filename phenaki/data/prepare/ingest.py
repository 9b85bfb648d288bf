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
from phenaki.data.prepare import frames, segments, spool, video, workers
from phenaki.data.prepare.filters import Filters
from phenaki.data.prepare.items import (
    FrameSequence,
    Padded,
    RawItem,
    Skipped,
    WorkUnit,
    open_media,
)
from phenaki.data.prepare.spool import ItemResult, UnitResult
from phenaki.io import artifacts
from phenaki.io.images import UnreadableMedia

# Of listing and decoding; raise it where the same input and options give other clips, so that no
# earlier run's files are taken for this one's. 2: several captions.
READING = 2


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
        how = repr((READING, dataclasses.replace(self, spool=Path())))
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
        for group in _groups(unit):
            workers.heartbeat()
            if isinstance(group, Skipped):
                problems.append(group)
            else:
                for result in _decode(group, file, job):
                    results.add(result)
                problems += _dropped_captions(group, job.filters)
    workers.heartbeat(0)
    return spool.finish(clips, results.all, problems, time.perf_counter() - began)


def retry_items(unit: WorkUnit, job: Job) -> UnitResult:
    """Decodes each file of a unit in a process of its own, after one of them crashed or hung."""
    results = _UniqueResults()
    problems: list[Skipped] = []
    clips = spool.path(job.spool, job.name(unit))
    with artifacts.atomic(clips) as partial, partial.open("wb") as file:
        if unit.items and len(list(_groups(unit))) == 1:
            for item in unit.items:
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
            result = dataclasses.replace(
                result, clips=(), static=0, slow=0, reason="second of this name"
            )
        elif result.reason is None:
            self._used.add(result.key)
        self.all.append(result)


def _groups(unit: WorkUnit) -> Iterator[list[RawItem] | Skipped]:
    """Items that are decoded together: all segments of a file, or one item."""
    together: list[RawItem] = []
    for item in unit:
        if together and not _same_file(item, together[-1]):
            yield together
            together = []
        if isinstance(item, Skipped):
            yield item
        else:
            together.append(item)
    if together:
        yield together


def _same_file(item: RawItem | Skipped, other: RawItem) -> bool:
    if isinstance(item, Skipped) or item.segment is None or other.segment is None:
        return False
    return item.media == other.media


def _decode_apart(unit: WorkUnit, job: Job) -> Iterator[UnitResult]:
    """The files of a unit as units of their own, a few in memory at a time."""
    groups = _groups(unit)
    while few := list(itertools.islice(groups, 16)):
        problems = tuple(group for group in few if isinstance(group, Skipped))
        yield UnitResult(Path(os.devnull), (), problems, 0.0)
        alone = [WorkUnit(g[0].key, tuple(g)) for g in few if not isinstance(g, Skipped)]
        decode, retry = (functools.partial(f, job=job) for f in (decode_unit, retry_items))
        yield from workers.run(decode, alone, 2, retry)


def _shifted(result: ItemResult, by: int) -> ItemResult:
    places = tuple((offset + by, size) for offset, size in result.clips)
    return dataclasses.replace(result, clips=places)


class _Spooled:
    """What became of one item; its clips are appended to `file` one by one."""

    def __init__(self, item: RawItem, file: io.BufferedIOBase, job: Job):
        self.item, self._file, self._job = item, file, job
        self.reason = job.filters.item(item)
        self.kind, self.static, self.slow, self.digest = item.kind, 0, 0, ""
        self.places: list[tuple[int, int]] = []

    def add(self, clip: video.Clip) -> None:
        self.kind = "image" if len(clip.video) == 1 else "video"
        if not self._job.filters.keeps(clip.video):
            self.static += 1
            return
        number = len(self.places) + self.static
        at = self._file.tell()
        pickle.dump(_record(self.item, clip, self.digest, number, self._job), self._file)
        self.places.append((at, self._file.tell() - at))
        self.slow += 0 < clip.source_fps < video.SLOW * self._job.form.fps

    def result(self) -> ItemResult:
        if self.reason is None and self.static and not self.places:
            self.reason = f"near-static: each of its {self.static} clips"
        if self.reason is not None:
            self.places, self.static, self.slow = [], 0, 0
        item, digest = self.item, self.digest
        if digest and item.segment:  # segments of equal files are equal, those of one file are not
            digest = hashlib.sha256(f"{digest}#{item.segment}".encode()).hexdigest()
        return ItemResult(
            item.key,
            self.kind,
            bool(item.captions),
            item.split,
            digest,
            tuple(self.places),
            self.static,
            self.reason,
            item.source,
            self.slow,
        )


def _decode(group: list[RawItem], file: io.BufferedIOBase, job: Job) -> list[ItemResult]:
    """Appends the clips of items to `file`: of one item, or of segments of the same video."""
    every = [_Spooled(item, file, job) for item in group]
    wanted = [item for item in every if item.reason is None]
    begin = file.tell()
    try:
        digest = sha256(group[0]) if wanted else ""
        for item in wanted:
            item.digest = digest
        for index, clip, reason in _clips([item.item for item in wanted], job) if wanted else ():
            workers.heartbeat()
            if reason is not None:
                wanted[index].reason = reason
            elif clip is not None:
                wanted[index].add(clip)
    except UnreadableMedia as error:
        for item in wanted:
            item.reason = error.reason
    results = [item.result() for item in every]
    if not any(result.clips for result in results):
        file.seek(begin)
        file.truncate()
    return results


def sha256(item: RawItem) -> str:
    """Hash of the bytes of the media, wherever they are.

    Raises:
        UnreadableMedia: cannot be read.
    """
    try:
        if isinstance(item.media, FrameSequence):
            return frames.sha256(item.media)
        media = item.media.media if isinstance(item.media, Padded) else item.media
        with open_media(media) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnreadableMedia(item.key, f"not readable: {error.strerror}") from error


def _dropped_captions(items: list[RawItem], filters: Filters) -> Iterator[Skipped]:
    """A line for each item that keeps some of its captions only."""
    for item in items:
        kept, count = len(filters.captions(item)), len(item.captions)
        if 0 < kept < count:
            reason = f"{count - kept} of its {count} captions are too short or too long"
            yield Skipped(item.key, reason)


def _clips(items: list[RawItem], job: Job) -> Iterator[segments.Found]:
    """The clips of one item, or of segments of one video."""
    form, item = job.form, items[0]
    size: Any = dict(height=form.height, width=form.width)
    time: Any = dict(frames=form.frames, fps=form.fps or None)
    if isinstance(item.media, FrameSequence):
        for clip in itertools.islice(frames.clips(item.media, **time, **size), job.limit):
            yield segments.Found(0, clip)
        return
    # FFmpeg and Pillow get bytes and never a name, which could make them open other files.
    with open_media(item.media) as file:
        if item.segment or not form.fps:
            parts = [part.segment or segments.WHOLE for part in items]
            yield from segments.clips(file, parts, **time, **size, limit=job.limit, guess=item.kind)
        else:
            clips = video.clips(file, guess=item.kind, **time, **size)
            for clip in itertools.islice(clips, job.limit):
                yield segments.Found(0, clip)


def _record(item: RawItem, clip: video.Clip, digest: str, number: int, job: Job) -> ClipRecord:
    is_image = len(clip.video) == 1
    captions = job.filters.captions(item)
    return ClipRecord(
        key=item.key if is_image else f"{item.key}#{number:05d}",
        frames=encode(clip.video, job.form.encoding, job.quality),
        caption=next(iter(captions), None),
        source=item.source,
        source_sha256=digest,
        source_size=clip.source_size,
        start=clip.start,
        fps=0.0 if is_image else job.form.fps if clip.fps is None else clip.fps,
        source_fps=clip.source_fps,
        more_captions=captions[1:],
    )
