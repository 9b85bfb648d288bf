"""Units of raw media to encoded clips in files of their own; a bad item costs itself.

What a unit gave lies in `spool`/NAME.clips and, once it is all there, NAME.done. NAME says what the
unit held and how it was cut: a later run takes it as it is, whatever happened to the one before.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt32, UInt64

from phenaki.data.format import ClipRecord, Format, encode
from phenaki.data.prepare import frames, images, video, workers
from phenaki.data.prepare.filters import Filters
from phenaki.data.prepare.items import Frames, RawItem, Skipped, Split, WorkUnit, opened


@dataclasses.dataclass(frozen=True)
class Job:
    """How every item is cut. `limit` is the most clips taken from one, None for all."""

    form: Format
    quality: int
    limit: int | None
    filters: Filters
    spool: Path

    def name(self, unit: WorkUnit) -> str:
        """Changes with whatever changes the unit's clips."""
        how = repr(dataclasses.replace(self, spool=Path()))
        return hashlib.sha256(f"{how}\n{unit.fingerprint()}".encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item: clips of `kind`, each (offset, size) in the spool; or a `reason`.

    `static` clips were left out for want of motion. An item that only lacks something (a caption)
    is not one of these but a `Skipped` in `UnitResult.problems`.
    """

    key: str
    kind: str
    captioned: bool = False
    split: Split | None = None
    sha256: str = ""
    clips: tuple[tuple[int, int], ...] = ()
    static: int = 0
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class UnitResult:
    """All that became of a unit; its clips are in `clips`."""

    clips: Path
    outcomes: tuple[ItemResult, ...]
    problems: tuple[Skipped, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Clips:
    """Records that lie in one spool file: where each begins, and its bytes."""

    path: Path
    offsets: UInt64[np.ndarray, " n"]
    sizes: UInt32[np.ndarray, " n"]


def cut(unit: WorkUnit, job: Job) -> UnitResult:
    """Decodes a unit into the spool, or finds it there.

    Clips wait on disk, not in memory: an hour of video takes no more memory than a second. Those of
    an item that turns out broken are taken back.
    """
    name = job.name(unit)
    if (done := finished(name, job.spool)) is not None:
        return done
    began = time.perf_counter()
    outcomes, problems = _ItemResults(), []
    part = job.spool / f"{name}.{os.getpid()}.part"
    with part.open("wb") as file:
        for item in unit:
            workers.alive()
            if isinstance(item, Skipped):
                problems.append(item)
            else:
                outcomes.add(_outcome(item, file, job))
        size = file.tell()
    workers.alive(False)
    clips = job.spool / f"{name}.clips"
    part.replace(clips)
    done = UnitResult(clips, tuple(outcomes.every), tuple(problems), time.perf_counter() - began)
    _mark(done, size, part)
    return done


def crashed(unit: WorkUnit, job: Job) -> UnitResult:
    """Stands in for a unit whose process died or hung: each of its items is tried alone."""
    outcomes = _ItemResults()
    problems: list[Skipped] = []
    name = job.name(unit)
    part = job.spool / f"{name}.part"
    with part.open("wb") as file:
        if len(unit.items) == 1:
            (item,) = unit.items
            reason = "the decoder crashed on it or did not come back"
            outcomes.add(ItemResult(item.key, item.kind, reason=reason))
        else:
            for done in _apart(unit, job):
                problems += done.problems
                for outcome in done.outcomes:
                    outcomes.add(_moved(outcome, file.tell()))
                with done.clips.open("rb") as taken:
                    shutil.copyfileobj(taken, file)
        size = file.tell()
    clips = job.spool / f"{name}.clips"
    part.replace(clips)
    done = UnitResult(clips, tuple(outcomes.every), tuple(problems), 0.0)
    _mark(done, size, part)
    return done


class _ItemResults:
    """Those of a unit; of several items of one name the first that can be used stays.

    Names of different units differ: they begin with the container's.
    """

    def __init__(self) -> None:
        self.every: list[ItemResult] = []
        self._used: set[str] = set()

    def add(self, outcome: ItemResult) -> None:
        if outcome.reason is None and outcome.key in self._used:
            outcome = dataclasses.replace(outcome, clips=(), static=0, reason="second of this name")
        elif outcome.reason is None:
            self._used.add(outcome.key)
        self.every.append(outcome)


def _apart(unit: WorkUnit, job: Job) -> Iterator[UnitResult]:
    """The items of a unit as units of their own, a few in memory at a time."""
    items = iter(unit)
    while few := list(itertools.islice(items, 16)):
        problems = tuple(item for item in few if isinstance(item, Skipped))
        yield UnitResult(Path(os.devnull), (), problems, 0.0)
        alone = [WorkUnit(item.key, (item,)) for item in few if isinstance(item, RawItem)]
        tries = functools.partial(cut, job=job), functools.partial(crashed, job=job)
        yield from workers.run(tries[0], alone, 2, tries[1])


def _moved(outcome: ItemResult, by: int) -> ItemResult:
    places = tuple((offset + by, size) for offset, size in outcome.clips)
    return dataclasses.replace(outcome, clips=places)


def _mark(done: UnitResult, size: int, part: Path) -> None:
    content = dataclasses.asdict(done) | {"clips": size}
    part.write_text(json.dumps(content))
    part.replace(done.clips.with_suffix(".done"))


def finished(name: str, spool: Path) -> UnitResult | None:
    """What an earlier run left of a unit, if all of it is there."""
    clips = spool / f"{name}.clips"
    try:
        content = json.loads(clips.with_suffix(".done").read_text())
        if clips.stat().st_size != content["clips"]:
            return None
    except (OSError, ValueError):
        return None
    outcomes = tuple(
        ItemResult(**o | {"clips": tuple(tuple(place) for place in o["clips"])})
        for o in content["outcomes"]
    )
    problems = tuple(Skipped(**problem) for problem in content["problems"])
    return UnitResult(clips, outcomes, problems, content["seconds"])


def _outcome(item: RawItem, file: io.BufferedIOBase, job: Job) -> ItemResult:
    reason = job.filters.item(item)
    places: list[tuple[int, int]] = []
    kind, static, digest = item.kind, 0, ""
    begin = file.tell()
    try:
        if reason is None:
            digest = sha256(item)
            for clip in _clips(item, job):
                workers.alive()
                kind = "image" if len(clip.video) == 1 else "video"
                if not job.filters.keeps(clip.video):
                    static += 1
                    continue
                at = file.tell()
                pickle.dump(_record(item, clip, digest, len(places) + static, job), file)
                places.append((at, file.tell() - at))
            if static and not places:
                reason = f"near-static: each of its {static} clips"
    except images.UnreadableMedia as error:
        reason = error.reason
    if reason is not None:
        file.seek(begin)
        file.truncate()
        places, static = [], 0
    captioned = item.caption is not None
    return ItemResult(item.key, kind, captioned, item.split, digest, tuple(places), static, reason)


def sha256(item: RawItem) -> str:
    """Of the media's bytes, whatever holds them.

    Raises:
        UnreadableMedia: cannot be read.
    """
    try:
        if isinstance(item.media, Frames):
            return frames.sha256(item.media)
        with opened(item.media) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise images.UnreadableMedia(item.key, f"not readable: {error.strerror}") from error


def _clips(item: RawItem, job: Job) -> Iterator[video.Clip]:
    form = job.form
    size: Any = dict(height=form.height, width=form.width)
    time: Any = dict(frames=form.frames, fps=form.fps)
    if isinstance(item.media, Frames):
        yield from itertools.islice(frames.clips(item.media, **time, **size), job.limit)
        return
    # FFmpeg and Pillow see bytes, never a name: no name can make them open something else.
    with opened(item.media) as file:
        if item.kind == "image":
            yield video.still(file, **size)
        else:
            yield from itertools.islice(video.clips(file, **time, **size), job.limit)


def _record(item: RawItem, clip: video.Clip, digest: str, number: int, job: Job) -> ClipRecord:
    still = len(clip.video) == 1
    return ClipRecord(
        key=item.key if still else f"{item.key}#{number:05d}",
        frames=encode(clip.video, job.form.encoding, job.quality),
        caption=item.caption,
        source=item.key,
        source_sha256=digest,
        source_size=clip.source_size,
        start=clip.start,
        fps=0.0 if still else job.form.fps,
        source_fps=clip.source_fps,
    )


def stored(part: Clips) -> Iterator[ClipRecord]:
    """Reads records back."""
    with part.path.open("rb") as file:
        for offset, size in zip(part.offsets.tolist(), part.sizes.tolist(), strict=True):
            file.seek(offset)
            yield pickle.loads(file.read(size))
