"""Clips of many segments of one video, cut while it is decoded once, in constant memory."""

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki.data.prepare import video, workers
from phenaki.data.prepare.items import Segment
from phenaki.io.images import UnreadableMedia, decode_errors, fit

WHOLE = Segment(Fraction(0))
NEAR = 0.01  # relative difference from the file's mean rate within which a clip has that rate


class Found(NamedTuple):
    """A clip of the segment `index`; or a reason, for which its earlier clips do not count."""

    index: int
    clip: video.Clip | None
    reason: str | None = None


def clips(
    path: Path | str | io.BufferedIOBase,
    segments: Sequence[Segment],
    *,
    frames: int,
    fps: float | int | None,
    height: int,
    width: int,
    limit: int | None = None,
) -> Iterator[Found]:
    """Cuts each segment into consecutive clips of `frames` frames, as `video.clips` does a file.

    Segments may overlap: a frame is resized once, and the clips that show it share its pixels. The
    file is decoded up to the end of the last segment.

    Args:
        fps: rate at which clips are sampled; None takes every frame, at the rate of the file.
        limit: maximum number of clips per segment.
    """
    cuts = []
    for index, segment in enumerate(segments):
        if segment.end is not None and segment.end <= segment.start:
            name = "empty" if segment.end == segment.start else "reversed"
            yield Found(index, None, f"{name} segment: {segment}")
        else:
            cuts.append(_Cut(index, segment))
    if cuts:
        rate = None if fps is None else Fraction(fps).limit_denominator(100_000)
        sampler = _Sampler(cuts, frames, rate, limit)
        yield from sampler.run(path, lambda image, aspect: fit(image, height, width, aspect=aspect))


@dataclasses.dataclass
class _Frame:
    """The `number`-th frame, shown from `time` until before `end`; resized when it is needed."""

    number: int
    time: Fraction
    end: Fraction
    tolerance: Fraction
    convert: Callable[[], tuple[np.ndarray, tuple[int, int]]]
    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    size: tuple[int, int] = (0, 0)

    def image(self) -> UInt8[np.ndarray, "h w 3"]:
        if self.pixels is None:
            self.pixels, self.size = self.convert()
        return self.pixels


@dataclasses.dataclass
class _Cut:
    """The state of one segment; `start` and `end` in seconds, as soon as they are known."""

    index: int
    segment: Segment
    start: Fraction = Fraction(0)
    end: Fraction | None = None
    taken: int = 0
    clips: int = 0
    done: bool = False
    images: list[np.ndarray] = dataclasses.field(default_factory=list)
    first: Fraction = Fraction(0)  # time of the first of `images`

    def begins(self, frame: _Frame) -> bool:
        """Whether the frame is the first that the segment shows."""
        if self.segment.unit == "frames":
            self.start = frame.time
            return frame.number >= self.segment.start
        self.start, self.end = self.segment.start, self.segment.end
        return self.start + frame.tolerance < frame.end


class _Sampler:
    def __init__(self, cuts: list[_Cut], frames: int, rate: Fraction | None, limit: int | None):
        # In the order in which they begin, last first.
        self.waiting = {
            unit: sorted(
                (cut for cut in cuts if cut.segment.unit == unit),
                key=lambda cut: cut.segment.start,
                reverse=True,
            )
            for unit in ("seconds", "frames")
        }
        self.open: list[_Cut] = []
        self.frames, self.rate, self.limit = frames, rate, limit

    def run(self, path, resize: Callable) -> Iterator[Found]:
        frame = None
        try:
            with contextlib.closing(_shown(path, resize)) as shown:
                for frame in shown:
                    workers.heartbeat()
                    for waiting in self.waiting.values():
                        while waiting and waiting[-1].begins(frame):
                            self.open.append(waiting.pop())
                    for cut in self.open:
                        yield from self._take(path, cut, frame)
                    self.open = [cut for cut in self.open if not cut.done]
                    if not (self.open or any(self.waiting.values())):
                        return
        except UnreadableMedia as error:
            for cut in self._rest():
                yield Found(cut.index, None, error.reason)
            return
        if frame is not None:
            for cut in self._rest():
                yield from self._at_the_end(cut, frame)

    def _rest(self) -> list[_Cut]:
        return [*self.open, *(cut for waiting in self.waiting.values() for cut in waiting)]

    def _take(self, path, cut: _Cut, frame: _Frame) -> Iterator[Found]:
        """Adds the frame to the cut as often as it is shown at the times of the clip's frames."""
        if cut.segment.unit == "frames" and frame.number + 1 == cut.segment.end:
            cut.end = frame.end
        target = frame.time if self.rate is None else cut.start + cut.taken / self.rate
        while target + frame.tolerance < frame.end and not cut.done:
            if cut.end is not None and target + frame.tolerance >= cut.end:
                break
            if not cut.images:
                cut.first = target
            cut.images.append(frame.image())
            cut.taken += 1
            if cut.taken > video.REPEATS * (frame.number + 2):
                raise UnreadableMedia(path, f"a frame would be shown {cut.taken} times")
            if len(cut.images) == self.frames:
                yield Found(cut.index, self._clip(cut, frame))
                cut.images, cut.clips = [], cut.clips + 1
                cut.done = cut.clips == self.limit
            if self.rate is None:
                break
            target = cut.start + cut.taken / self.rate
        if cut.end is not None and cut.end <= frame.end and not cut.done:
            cut.done = True
            yield from self._too_short(cut)

    def _clip(self, cut: _Cut, frame: _Frame) -> video.Clip:
        mean = float(frame.number / frame.time) if frame.time else 0.0
        rate = self.rate
        if rate is None:
            own = len(cut.images) / (frame.end - cut.first)
            rate = mean if abs(own - mean) <= NEAR * own else own
        return video.Clip(float(cut.first), np.stack(cut.images), frame.size, mean, fps=float(rate))

    def _too_short(self, cut: _Cut) -> Iterator[Found]:
        if not cut.clips:
            at = "" if self.rate is None else f" at {float(self.rate):g} fps"
            reason = f"too short: {len(cut.images)} frames{at}, {self.frames} needed"
            yield Found(cut.index, None, reason)

    def _at_the_end(self, cut: _Cut, last: _Frame) -> Iterator[Found]:
        """What becomes of a segment that the file's end cuts off."""
        segment, counted, length = cut.segment, last.number + 1, last.end
        if last.number == 0 and segment == WHOLE:  # an image, whatever its duration
            yield Found(cut.index, video.Clip(0.0, last.image()[None], last.size))
            return
        of_file = counted if segment.unit == "frames" else length
        over = (of_file if segment.end is None else segment.end) - of_file
        if segment.unit == "frames":
            over *= length / counted
        if segment.start >= of_file or over > segment.slack:
            shown = f"{counted} frames" if segment.unit == "frames" else f"{float(length):.1f} s"
            reason = f"past the end: {segment}, the file has {shown}"
            yield Found(cut.index, None, reason)
        else:
            yield from self._too_short(cut)


def _shown(path, resize: Callable) -> Iterator[_Frame]:
    """The frames of a file in order, with their times after the first."""
    previous, first, number = None, Fraction(0), 0
    for item in video._in_order(video._decoded(path)):
        first = item.time if previous is None else first
        if previous is not None:
            yield _frame(path, previous, item.time, first, number, resize)
            number += 1
        if item.frame is None:
            return
        previous = item
    raise UnreadableMedia(path, "no video frames")


def _frame(path, item, end: Fraction, first: Fraction, number: int, resize: Callable) -> _Frame:
    def convert():
        with decode_errors(path):
            return convert_and_resize()

    def convert_and_resize():
        image, aspect = video._convert(path, item.frame, item.aspect)
        size = (image.shape[0], round(image.shape[1] * aspect))
        return resize(Image.fromarray(image), aspect), size

    return _Frame(number, item.time - first, end - first, item.tolerance, convert)
