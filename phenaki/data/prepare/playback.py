"""Videos and images as the sequence of frames that a player shows, each with its time.

Frames come in the order in which the decoder returns them, which is that of display; times that a
container does not store or that contradict this order never move a frame.
"""

import functools
import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from PIL import Image

from phenaki.data.prepare import clock, display
from phenaki.io import signatures
from phenaki.io.images import (
    UnreadableMedia,
    check_size,
    decode_errors,
    local,
    opened,
    read_frames,
)
from phenaki.io.signatures import MediaKind

Source = Path | str | io.BufferedIOBase

# A longer gap is a clock that restarts, as in FFmpeg's player; the first for formats whose parts
# are joined as they are (transport streams, DVDs).
MAX_GAPS = (Fraction(10), Fraction(3600))  # seconds
# Browsers show animated images of shorter frames for a tenth of a second.
SHORTEST, INSTEAD = Fraction(1, 100), Fraction(1, 10)
TRUNCATED = 0.98  # of the bytes; less is refused
# Media containers. Others open further files by name (concat, hls) or decode any text as images.
FORMATS = (
    "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,live_flv,ogg,gif,yuv4mpegpipe,mxf,m4v,"
    "h264,hevc,ivf,obu,mjpeg,dv,rm,nut,vc1,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,apng"
)
# Formats without times of display: FFmpeg invents some, in the order of decoding. In MXF they are
# computed from an index that is often wrong; its rate is constant.
DECODING_TIMES = ("avi", "asf", "mxf")
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave transparency out
# PyAV 18 refuses metadata that is not UTF-8 unless told otherwise; 19 cannot be told.
_ANY_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if av.__version__.startswith("18.") else {}
)
_SONG = "sound with a cover, no video"
_COVER = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


class Shown(NamedTuple):
    """A frame for as long as it is shown.

    `time` and `end` are seconds after the start of the first frame; `end` is the next frame's
    `time`. `tolerance` is the rounding of the container's clock in seconds. `image` converts the
    frame: it returns RGB and width / height of a pixel.
    """

    time: Fraction
    end: Fraction
    tolerance: Fraction
    last: bool
    image: Callable[[], tuple[Image.Image, float]]


class _Lasting(NamedTuple):
    """A frame, or an image, and the seconds for which it is shown."""

    seconds: Fraction
    tolerance: Fraction
    image: Callable[[], tuple[Image.Image, float]]


def shown(source: Source, guess: MediaKind = "video") -> Iterator[Shown]:
    """Yields the frames of a video or an animated image; an image is a single frame.

    What the source is follows from its first bytes, or else from `guess`, the kind of its name.

    Raises:
        UnreadableMedia: corrupt, truncated or too large. It may be raised after some frames.
    """
    frames = _of_image(source) if _kind(source, guess) == "image" else _of_video(source)
    time, one = Fraction(0), next(frames, None)
    if one is None:
        raise UnreadableMedia(source, "no video frames")
    for following in frames:
        end = time + one.seconds
        yield Shown(time, end, one.tolerance, False, one.image)
        time, one = end, following
    yield Shown(time, time + one.seconds, one.tolerance, True, one.image)


def _kind(source: Source, guess: MediaKind) -> MediaKind:
    with decode_errors(source), opened(source) as file:
        kind = signatures.kind_of_file(file, guess)
        missing = signatures.truncated(file) if kind == "video" else None
    if missing and missing[0] < TRUNCATED * missing[1]:
        raise UnreadableMedia(source, "truncated: {:,} of {:,} bytes".format(*missing))
    return kind


def _of_image(source: Source) -> Iterator[_Lasting]:
    for image, seconds in read_frames(source):
        lasts = _animated(seconds or Fraction(0))
        yield _Lasting(lasts, Fraction(1, 1000), functools.partial(_square, image))


def _square(image: Image.Image) -> tuple[Image.Image, float]:
    return image, 1.0


def _animated(seconds: Fraction) -> Fraction:
    return INSTEAD if seconds <= SHORTEST else seconds


def _of_video(source: Source) -> Iterator[_Lasting]:
    with (
        decode_errors(source),
        av.open(
            local(source) if isinstance(source, Path | str) else source,
            options={"format_whitelist": FORMATS},
            **_ANY_METADATA,
        ) as container,
    ):
        stream = _stream(source, container)
        if stream.codec_context is None:
            raise UnreadableMedia(source, "no decoder for its video")
        check_size(source, stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.thread_count = 1  # files are decoded in parallel; see `workers`
        # Containers round timestamps: Matroska stores 1/24 s as 42 ms.
        tolerance = min(_fraction(stream.time_base), Fraction(1, 1000))
        frames = display.deinterlaced(_frames(source, container, stream))
        for seconds, frame in _timed(frames, container, stream):
            aspect = float(stream.sample_aspect_ratio or 1)
            image = functools.partial(_converted, source, frame, aspect)
            yield _Lasting(seconds, tolerance, image)


def _timed(frames, container, stream) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    if container.format.name == "gif":
        return ((_animated(stamps.lasts or Fraction(0)), frame) for stamps, frame in frames)
    joins = container.format.flags & av.format.Flags.ts_discont.value
    usual = 1 / _fraction(stream.average_rate) if stream.average_rate else None
    tick = _fraction(stream.time_base)
    return clock.durations(frames, tick, MAX_GAPS[0 if joins else 1], usual)


def _fraction(value: Any) -> Fraction:
    """A rational number of PyAV, which from 19 on has a type of its own for them."""
    return Fraction(value.numerator, value.denominator)


def _converted(source: Source, frame: av.VideoFrame, aspect: float) -> tuple[Image.Image, float]:
    with decode_errors(source):
        return display.rgb(source, frame, aspect)


def _stream(source: Source, container) -> av.VideoStream:
    """FFmpeg's choice, unless it is the cover of a song or a thumbnail of a video."""
    videos = [one for one in container.streams.video if not one.disposition & _COVER]
    if not videos:
        covers = len(container.streams.video)
        raise UnreadableMedia(source, _SONG if covers else "no video stream")
    best = container.streams.best("video")
    return best if best in videos else videos[0]


def _frames(source: Source, container, stream) -> Iterator[tuple[clock.Stamps, av.VideoFrame]]:
    """Decoded frames with their time stamps, in order of display."""
    tick, count = _fraction(stream.time_base), 0
    presented = container.format.name not in DECODING_TIMES
    decode = _decoder(stream)
    with decode_errors(source, lambda: f" after {count} frames" if count else ""):
        for packet in container.demux(stream):
            try:
                frames = decode(packet)
            except av.InvalidDataError:
                if count or packet.is_keyframe:
                    raise
                continue  # recordings and cut transport streams begin before a keyframe
            for frame in frames:
                count += 1
                if frame.is_corrupt:
                    raise UnreadableMedia(source, f"corrupt frame{_at(frame, tick)}")
                lasts = frame.duration * tick if frame.duration else None
                yield clock.Stamps(frame.pts if presented else None, frame.dts, lasts), frame
    if count == 1 and container.streams.audio:
        raise UnreadableMedia(source, _SONG)


def _decoder(stream) -> Callable[[av.Packet], list[av.VideoFrame]]:
    """The stream's decoder, or for WebM with transparency the one that reads it."""
    name = ALPHA_DECODERS.get(stream.codec_context.name)
    if name is None or "1" not in (
        stream.metadata.get("ALPHA_MODE"),
        stream.metadata.get("alpha_mode"),
    ):
        return stream.decode
    context = av.CodecContext.create(name, "r")
    context.extradata = stream.codec_context.extradata
    context.thread_count = 1
    return context.decode


def _at(frame: av.VideoFrame, tick: Fraction) -> str:
    ticks = frame.dts if frame.pts is None else frame.pts
    return "" if ticks is None else f" at {float(ticks * tick):.2f} s"
