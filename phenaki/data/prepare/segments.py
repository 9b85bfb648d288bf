"""Clips of many segments of one video, cut while it is decoded once, in constant memory."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki.data.prepare import playback, video, workers
from phenaki.data.prepare.items import Segment
from phenaki.io.images import UnreadableMedia, fit
from phenaki.io.signatures import MediaKind

WHOLE = Segment(Fraction(0))
Resize = Callable[[Image.Image, float], np.ndarray]
NEAR = 0.01  # relative difference from the file's mean rate within which a clip has that rate


class Found(NamedTuple):
    """A clip of the segment `number`; or a reason, for which its earlier clips do not count."""

    number: int
    clip: video.Clip | None
    reason: str | None = None


def clips(
    path: playback.Source,
    segments: Sequence[Segment],
    *,
    frames: int,
    fps: float | int | None,
    height: int,
    width: int,
    limit: int | None = None,
    guess: MediaKind = "video",
) -> Iterator[Found]:
    """Cuts each segment into consecutive clips of `frames` frames, as `video.clips` does a file.

    Segments may overlap: a frame is resized once, and the clips that show it share its pixels. The
    file is decoded up to the end of the last segment.

    Args:
        fps: rate at which clips are sampled; None takes every frame, at the rate of the file.
        limit: maximum number of clips per segment.
        guess: what the file is if its first bytes do not tell.
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

        def resize(image: Image.Image, aspect: float) -> np.ndarray:
            return fit(image, height, width, aspect=aspect)

        yield from sampler.run(path, resize, guess)


class _Frame:
    """The `number`-th frame of a file, resized when it is needed."""

    def __init__(self, number: int, shown: playback.Shown, resize: Resize):
        self.number, self.time, self.end = number, shown.time, shown.end
        self.tolerance, self.last = shown.tolerance, shown.last
        self.mean = video.mean_rate(number, shown)
        self._shown, self._resize = shown, resize

    @functools.cached_property
    def _original(self) -> tuple[Image.Image, float]:
        return self._shown.image()

    @functools.cached_property
    def image(self) -> UInt8[np.ndarray, "h w 3"]:
        return self._resize(*self._original)

    @property
    def size(self) -> tuple[int, int]:
        image, aspect = self._original
        return image.height, round(image.width * aspect)


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

    def run(self, path: playback.Source, resize: Resize, guess: MediaKind) -> Iterator[Found]:
        frame = None
        try:
            for number, shown in enumerate(playback.shown(path, guess)):
                workers.heartbeat()
                frame = _Frame(number, shown, resize)
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

    def _take(self, path: object, cut: _Cut, frame: _Frame) -> Iterator[Found]:
        """Adds the frame to the cut as often as it is shown at the times of the clip's frames."""
        if cut.segment.unit == "frames" and frame.number + 1 == cut.segment.end:
            cut.end = frame.end
        target = frame.time if self.rate is None else cut.start + cut.taken / self.rate
        while target + frame.tolerance < frame.end and not cut.done:
            if cut.end is not None and target + frame.tolerance >= cut.end:
                break
            if not cut.images:
                cut.first = target
            cut.images.append(frame.image)
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
            cut.images = []  # the rest of a clip, of each of thousands of segments

    def _clip(self, cut: _Cut, frame: _Frame) -> video.Clip:
        rate = float(self.rate or 0)
        if self.rate is None:
            rate = float(len(cut.images) / (frame.end - cut.first))
            if abs(rate - frame.mean) <= NEAR * rate:
                rate = frame.mean
        images = np.stack(cut.images)
        return video.Clip(float(cut.first), images, frame.size, frame.mean, rate)

    def _too_short(self, cut: _Cut) -> Iterator[Found]:
        if not cut.clips:
            at = "" if self.rate is None else f" at {float(self.rate):g} fps"
            reason = f"too short: {len(cut.images)} frames{at}, {self.frames} needed"
            yield Found(cut.index, None, reason)

    def _at_the_end(self, cut: _Cut, last: _Frame) -> Iterator[Found]:
        """What becomes of a segment that the file's end cuts off."""
        segment, counted, length = cut.segment, last.number + 1, last.end
        if last.number == 0 and segment == WHOLE:  # an image, whatever its duration
            yield Found(cut.index, video.Clip(0.0, last.image[None], last.size))
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
