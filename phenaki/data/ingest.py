"""Media files to encoded clips, several side by side, in a fixed order; a bad one costs itself."""

import collections
import dataclasses
import hashlib
import itertools
import multiprocessing
import pickle
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from phenaki.data import video
from phenaki.data.builder import Format, Record, encode
from phenaki.data.sources import RawItem


@dataclasses.dataclass(frozen=True)
class Job:
    """How every file is cut. `limit` is the most clips taken from one file, None for all."""

    form: Format
    quality: int
    limit: int | None
    spool: Path  # folder for the clips of files under way


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one file: `clips` of `kind` in `spooled`, or the `reason` to skip it."""

    item: RawItem
    kind: str
    clips: int
    seconds: float
    spooled: Path
    reason: str | None = None

    def records(self) -> Iterator[Record]:
        """Reads the clips back, one at a time, and removes them from the spool."""
        if self.clips:
            with self.spooled.open("rb") as file:
                for _ in range(self.clips):
                    yield pickle.load(file)
        self.spooled.unlink(missing_ok=True)


def cut(item: RawItem, number: int, job: Job) -> Outcome:
    """Decodes one file into the spool.

    Clips wait on disk, not in memory, until the whole file has proved readable: an hour of video
    takes no more memory than a second.
    """
    began = time.perf_counter()
    spooled = job.spool / f"{number:08d}"
    count, kind, reason = 0, item.kind, None
    try:
        digest = _sha256(item.path)
        with spooled.open("wb") as file:
            for clip in _clips(item, job):
                kind = "image" if len(clip.video) == 1 else "video"
                pickle.dump(_record(item, clip, digest, count, job), file)
                count += 1
    except video.UnreadableMedia as error:
        count, reason = 0, error.reason
    return Outcome(item, kind, count, time.perf_counter() - began, spooled, reason)


def _clips(item: RawItem, job: Job) -> Iterator[video.Clip]:
    form = job.form
    if item.kind == "image":
        yield video.still(item.path, height=form.height, width=form.width)
        return
    every = video.clips(
        item.path, frames=form.frames, fps=form.fps, height=form.height, width=form.width
    )
    yield from itertools.islice(every, job.limit)


def _record(item: RawItem, clip: video.Clip, digest: str, number: int, job: Job) -> Record:
    still = len(clip.video) == 1
    return Record(
        key=item.key if still else f"{item.key}#{number:05d}",
        frames=encode(clip.video, job.form.encoding, job.quality),
        caption=item.caption,
        source=item.key,
        source_sha256=digest,
        source_size=clip.source_size,
        start=clip.start,
        fps=0.0 if still else job.form.fps,
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise video.UnreadableMedia(path, f"not readable: {error.strerror}") from error


def outcomes(items: Iterable[RawItem], job: Job, workers: int) -> Generator[Outcome, None, None]:
    """Cuts the files in `workers` processes; yields in the order of `items`."""
    queue = collections.deque(enumerate(items))
    if workers == 1:
        for number, item in queue:
            yield cut(item, number, job)
        return
    while queue:
        try:
            with _pool(workers) as pool:
                yield from _until_broken(pool, queue, job, 2 * workers)
        except BrokenProcessPool:
            # FFmpeg died on one of the files under way: only alone can the culprit be told.
            for _ in range(min(2 * workers, len(queue))):
                number, item = queue.popleft()
                yield _alone(item, number, job)


def _until_broken(pool, queue, job: Job, ahead: int) -> Iterator[Outcome]:
    """Removes a file from the queue only once its outcome is known."""
    futures: collections.deque = collections.deque()
    while queue:
        for number, item in itertools.islice(queue, len(futures), ahead):
            futures.append(pool.submit(cut, item, number, job))
        outcome = futures.popleft().result()
        queue.popleft()
        yield outcome


def _alone(item: RawItem, number: int, job: Job) -> Outcome:
    try:
        with _pool(1) as pool:
            return pool.submit(cut, item, number, job).result()
    except BrokenProcessPool:
        spooled = job.spool / f"{number:08d}"
        return Outcome(item, item.kind, 0, 0.0, spooled, "the decoder crashed on it")


def _pool(workers: int) -> ProcessPoolExecutor:
    # Fresh processes: forking one that runs TensorFlow's threads can hang.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
