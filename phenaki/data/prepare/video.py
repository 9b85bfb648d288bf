"""Video files as uint8 RGB clips, sampled by timestamp in constant memory.

Clip frame k shows the last source frame with pts <= t0 + k / fps, where t0 is the first pts.
Counting frames ("every n-th") would fail for variable rates and for odd ratios of rates.
"""

import dataclasses
import heapq
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki.io.images import (
    UnreadableMedia,
    check_size,
    decode_errors,
    fit,
    local,
    over_white,
    read_image,
)

MAX_GAP = 3600  # seconds between two frames; more means wrong timestamps
REORDER = 4  # decoded frames held back to sort unordered timestamps
REPEATS = 1000  # mean number of times that a frame is shown; more means wrong timestamps
# Media containers. Others open further files by name (concat, hls) or decode any text as images.
FORMATS = (
    "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,live_flv,ogg,gif,yuv4mpegpipe,mxf,m4v,"
    "h264,hevc,ivf,obu,mjpeg,dv,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,apng"
)
DECLARES_DURATION = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # others estimate it
# Bit exact on every machine; and 10-bit limited-range white is converted to 255 instead of 253.
_CONVERSION = (
    av.video.reformatter.Interpolation.BICUBIC
    | av.video.reformatter.Interpolation.ACCURATE_RND
    | av.video.reformatter.Interpolation.FULL_CHR_H_INT
    | av.video.reformatter.Interpolation.BITEXACT
)
_BT709, _UNSPECIFIED = 1, 2  # H.273 matrix coefficients


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
    path: Path | str | io.BufferedIOBase,
    *,
    frames: int,
    fps: float | int,
    height: int,
    width: int,
    crop: tuple[float, float] = (0.5, 0.5),
) -> Iterator[Clip]:
    """Cuts a video into consecutive, non-overlapping clips of `frames` frames at `fps` (§2.1, B.2).

    Args:
        path: any container and codec that FFmpeg reads, or an open seekable file.
        crop: position of the crop after the short side is resized: 0 is top or left, 1 is bottom or
            right.

    Yields one clip at a time. A file of a single frame is an image: one clip of one frame.

    Raises:
        UnreadableMedia: corrupt, truncated, too short or too large. It may be raised after some
            clips: a caller that wants complete files only discards those clips.
    """
    buffer: list[np.ndarray] = []
    count = 0
    for index, source_fps, image, aspect in _sampled(path, fps):
        size = (image.shape[0], round(image.shape[1] * aspect))
        buffer.append(fit(Image.fromarray(image), height, width, crop, aspect))
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


def image_clip(
    path: Path | str | io.BufferedIOBase,
    *,
    height: int,
    width: int,
    crop: tuple[float, float] = (0.5, 0.5),
) -> Clip:
    """Reads an image as a clip of one frame; arguments and errors as in `clips`."""
    image = read_image(path)
    return Clip(0.0, fit(image, height, width, crop)[None], (image.height, image.width))


class _Timed(NamedTuple):
    """A decoded frame, or None for the end of the video; time and tolerance in seconds."""

    time: Fraction
    tolerance: Fraction
    frame: av.VideoFrame | None
    aspect: float


def _sampled(path, fps: float | int) -> Iterator[tuple[int, float | None, np.ndarray, float]]:
    """Yields (k, mean rate so far, full-size image, pixel aspect) at t0 + k / fps.

    The rate is None for the only frame of a file.
    """
    rate = _rational(fps)
    index = decoded = 0
    shown = image = first = None
    last = Fraction(0)  # timestamp
    with decode_errors(path):
        for item in _in_order(_decoded(path)):
            first = item.time if first is None else first
            if item.frame is not None:
                decoded, last = decoded + 1, item.time
            while shown is not None and first + index / rate + item.tolerance < item.time:
                image = _convert(path, *shown) if image is None else image
                alone = decoded == 1 and item.frame is None
                mean = float((decoded - 1) / (last - first)) if last > first else 0.0
                yield index, None if alone else mean, *image
                if alone:
                    return  # whatever its duration
                index += 1
                if index > REPEATS * (decoded + 1):
                    raise UnreadableMedia(path, f"{decoded} frames would be shown {index} times")
            if item.frame is None:
                return
            shown, image = (item.frame, item.aspect), None
    raise UnreadableMedia(path, "no video frames")


def _in_order(frames: Iterator[_Timed]) -> Iterator[_Timed]:
    """Sorts by timestamp within a short window; drops frames that are later than that."""
    heap: list = []
    last = None
    for order, item in enumerate(frames):
        if item.frame is not None:
            heapq.heappush(heap, (item.time, order, item))
        while heap and (item.frame is None or len(heap) > REORDER):
            time, _, ready = heapq.heappop(heap)
            if last is None or time >= last:
                last = time
                yield ready
        if item.frame is None:
            yield item


def _decoded(path) -> Iterator[_Timed]:
    """Yields frames in decoding order, and then the end of the video."""
    count = 0
    with (
        decode_errors(path, lambda: f" after {count} frames" if count else ""),
        av.open(
            local(path) if isinstance(path, Path | str) else path,
            metadata_errors="replace",
            options={"format_whitelist": FORMATS},
        ) as container,
    ):
        stream = container.streams.best("video")
        if stream is None:
            raise UnreadableMedia(path, "no video stream")
        check_size(path, stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.thread_count = 1  # files are decoded in parallel; see `workers`
        # Containers round timestamps: Matroska stores 1/24 s as 42 ms.
        tolerance = min(stream.time_base, Fraction(1, 1000))
        aspect = float(stream.sample_aspect_ratio or 1)
        usual = 1 / stream.average_rate if stream.average_rate else Fraction(1, 25)
        time: Fraction | None = None
        end: Fraction | None = None
        reached = Fraction(0)
        for packet in container.demux(stream, *container.streams.audio):
            if packet.pts is not None:
                reached = max(reached, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream_index != stream.index:
                continue
            for frame in packet.decode():
                previous, time = time, _time(frame, stream, time, usual)
                if frame.is_corrupt:
                    raise UnreadableMedia(path, f"corrupt frame at {float(time):.2f} s")
                if previous is not None and abs(time - previous) > MAX_GAP:
                    raise UnreadableMedia(path, "timestamps jump by more than an hour")
                lasts = frame.duration * stream.time_base if frame.duration else usual
                end = max(time + lasts, end or time)
                count += 1
                yield _Timed(time, tolerance, frame, aspect)
        _check_complete(path, container, reached)
        if end is not None:
            yield _Timed(end, tolerance, None, aspect)


def _time(frame, stream, previous: Fraction | None, usual: Fraction) -> Fraction:
    ticks = frame.pts if frame.pts is not None else frame.dts
    if ticks is not None:
        return ticks * stream.time_base
    return Fraction(0) if previous is None else previous + usual


def _check_complete(path, container, reached: Fraction):
    """Raises for a truncated Matroska file, whose end FFmpeg reports as regular."""
    if container.duration is None or container.format.name not in DECLARES_DURATION:
        return
    declared = container.duration / av.time_base
    if reached < declared - max(0.5, 0.02 * declared):
        raise UnreadableMedia(path, f"truncated: {float(reached):.1f} s of {declared:.1f} s")


def _convert(path, frame: av.VideoFrame, aspect: float) -> tuple[np.ndarray, float]:
    """Converts with the frame's own matrix and range, and rotates upright; returns the aspect."""
    check_size(path, frame.width, frame.height)
    matrix = None
    if frame.colorspace == _UNSPECIFIED and frame.height >= 720:
        matrix = _BT709  # as players assume for untagged high definition
    alpha = any(component.is_alpha for component in frame.format.components)
    converted = frame.reformat(
        format="rgba" if alpha else "rgb24",
        src_colorspace=matrix,
        interpolation=int(_CONVERSION),
    )
    image = converted.to_ndarray()
    if alpha:
        image = np.asarray(over_white(Image.fromarray(image)))
    quarter_turns = round(frame.rotation / 90) % 4
    if quarter_turns % 2:
        aspect = 1 / aspect
    return np.ascontiguousarray(np.rot90(image, quarter_turns)), aspect


def _rational(fps: float | int) -> Fraction:
    return Fraction(fps).limit_denominator(100_000)
