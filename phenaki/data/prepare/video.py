"""Videos and images as uint8 RGB clips, sampled by time in constant memory.

Clip frame k shows the last source frame with time <= k / fps, counted from the first frame's.
Counting frames ("every n-th") would fail for variable rates and for odd ratios of rates.
"""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki.data.prepare import playback
from phenaki.io.images import UnreadableMedia, fit
from phenaki.io.signatures import MediaKind

SLOW = 0.7  # of the rate of the clips: every third frame of such sources is shown twice
REPEATS = 1000  # mean number of times that a frame is shown; more means wrong timestamps


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip of a video, or an image as a clip of one frame.

    `start` is in seconds after the first frame; `source_size` is (height, width) as displayed;
    `source_fps` is the mean rate up to the clip's end, 0 for an image. `fps` is the clip's own rate
    where it is not sampled at a given one.
    """

    start: float
    video: UInt8[np.ndarray, "f h w 3"]
    source_size: tuple[int, int]
    source_fps: float = 0.0
    fps: float | None = None


def clips(
    path: playback.Source,
    *,
    frames: int,
    fps: float | int,
    height: int,
    width: int,
    crop: tuple[float, float] = (0.5, 0.5),
    guess: MediaKind = "video",
) -> Iterator[Clip]:
    """Cuts a video into consecutive, non-overlapping clips of `frames` frames at `fps` (§2.1, B.2).

    Args:
        path: any container and codec that FFmpeg reads, or an open seekable file.
        crop: position of the crop after the short side is resized: 0 is top or left, 1 is bottom or
            right.
        guess: what the file is if its first bytes do not tell.

    Yields one clip at a time. An image, and a file of a single frame, is one clip of
    one frame.

    Raises:
        UnreadableMedia: corrupt, truncated, too short or too large. It may be raised after some
            clips: a caller that wants complete files only discards those clips.
    """
    buffer: list[np.ndarray] = []
    count = 0
    for index, source_fps, image, aspect in _sampled(path, fps, guess):
        size = (image.height, round(image.width * aspect))
        buffer.append(fit(image, height, width, crop, aspect))
        if source_fps is None:
            yield Clip(0.0, np.stack(buffer), size)
            return
        if len(buffer) == frames:
            start = float((index + 1 - frames) / _rational(fps))
            yield Clip(start, np.stack(buffer), size, source_fps)
            buffer, count = [], count + 1
    if not count:
        raise UnreadableMedia(
            path, f"too short: {len(buffer)} frames at {fps:g} fps, {frames} needed"
        )


def _sampled(
    source: playback.Source, fps: float | int, guess: MediaKind
) -> Iterator[tuple[int, float | None, Image.Image, float]]:
    """Yields (k, mean rate so far, full-size image, pixel aspect) at k / fps.

    The rate is None for the only frame of a file.
    """
    rate = _rational(fps)
    index = 0
    for number, frame in enumerate(playback.shown(source, guess)):
        alone = frame.last and number == 0
        image = None
        while index / rate + frame.tolerance < frame.end:
            image = frame.image() if image is None else image
            yield index, None if alone else mean_rate(number, frame), *image
            if alone:
                return  # whatever its duration
            index += 1
            if index > REPEATS * (number + 2):
                raise UnreadableMedia(source, f"{number + 1} frames would be shown {index} times")


def mean_rate(number: int, frame: playback.Shown) -> float:
    """Frames per second until frame `number` ends, or begins if it is the last."""
    gaps, seconds = (number, frame.time) if frame.last else (number + 1, frame.end)
    return float(gaps / seconds) if seconds else 0.0


def _rational(fps: float | int) -> Fraction:
    return Fraction(fps).limit_denominator(100_000)
