"""Videos and images as the sequence of frames that a player shows, each with its time.

Frames come in the order in which the decoder returns them, which is that of display; times that a
container does not store or that contradict this order never move a frame.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from PIL import Image

from phenaki.data.prepare import display, signatures
from phenaki.data.prepare.signatures import MediaKind
from phenaki.io.images import UnreadableMedia, check_size, decode_errors, local, read_frames

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


def shown(source: Source, guess: MediaKind = "video") -> Iterator[Shown]:
    """Yields the frames of a video or an animated image; an image is a single frame.

    What the source is follows from its first bytes, or else from `guess`, the kind of its name.

    Raises:
        UnreadableMedia: corrupt, truncated or too large. It may be raised after some frames.
    """
    kind = _kind(source, guess)
    frames = _of_image(source) if kind == "image" else _of_video(source)
    now, previous = Fraction(0), None
    for following in frames:
        if previous is not None:
            lasts = _gap(previous, following) or previous.lasts
            yield Shown(now, now + lasts, previous.tolerance, False, previous.image)
            now += lasts
        previous = following
    if previous is None:
        raise UnreadableMedia(source, "no video frames")
    yield Shown(now, now + previous.lasts, previous.tolerance, True, previous.image)


class _Frame(NamedTuple):
    """A frame before its place in time is known; `time` is None where durations tell it."""

    time: Fraction | None
    lasts: Fraction  # seconds, if the next frame's time does not tell
    max_gap: Fraction
    tolerance: Fraction
    image: Callable[[], tuple[Image.Image, float]]


def _gap(frame: _Frame, following: _Frame) -> Fraction | None:
    """Seconds between two frames; None where the clock restarts or repeats a time."""
    if frame.time is None or following.time is None:
        return None
    gap = following.time - frame.time
    return gap if 0 < gap <= frame.max_gap else None


def _kind(source: Source, guess: MediaKind) -> MediaKind:
    with decode_errors(source), contextlib.ExitStack() as stack:
        file = source
        if isinstance(source, Path | str):
            file = stack.enter_context(open(source, "rb"))
        kind = signatures.kind_of_content(signatures.head_of(file)) or guess
        missing = signatures.truncated(file) if kind == "video" else None
    if missing and missing[0] < TRUNCATED * missing[1]:
        raise UnreadableMedia(source, "truncated: {:,} of {:,} bytes".format(*missing))
    return kind


def _of_image(source: Source) -> Iterator[_Frame]:
    for image, seconds in read_frames(source):
        lasts = INSTEAD if seconds is None or seconds <= SHORTEST else seconds
        yield _Frame(None, lasts, Fraction(0), Fraction(1, 1000), functools.partial(_square, image))


def _square(image: Image.Image) -> tuple[Image.Image, float]:
    return image, 1.0


def _of_video(source: Source) -> Iterator[_Frame]:
    count = 0
    with (
        decode_errors(source, lambda: f" after {count} frames" if count else ""),
        av.open(
            local(source) if isinstance(source, Path | str) else source,
            metadata_errors="replace",
            options={"format_whitelist": FORMATS},
        ) as container,
    ):
        stream = _stream(source, container)
        check_size(source, stream.codec_context.width, stream.codec_context.height)
        stream.codec_context.thread_count = 1  # files are decoded in parallel; see `workers`
        base = stream.time_base
        # Containers round timestamps: Matroska stores 1/24 s as 42 ms.
        tolerance = min(base, Fraction(1, 1000))
        joins = container.format.flags & av.format.Flags.ts_discont.value
        max_gap = MAX_GAPS[0 if joins else 1]
        usual = 1 / stream.average_rate if stream.average_rate else Fraction(1, 25)
        animated = container.format.name == "gif"
        for ticks, frame in display.deinterlaced(_frames(source, container, stream)):
            lasts = frame.duration * base if frame.duration else usual
            if animated:
                ticks, lasts = None, INSTEAD if lasts <= SHORTEST else lasts
            time = None if ticks is None else ticks * base
            image = functools.partial(_converted, source, frame, float(stream.sample_aspect_ratio or 1))
            count += 1
            yield _Frame(time, lasts, max_gap, tolerance, image)


def _converted(source: Source, frame: av.VideoFrame, aspect: float) -> tuple[Image.Image, float]:
    with decode_errors(source):
        return display.rgb(source, frame, aspect)


def _stream(source: Source, container) -> av.VideoStream:
    """FFmpeg's choice, unless it is a cover picture of a song or a thumbnail of a video."""
    videos = [one for one in container.streams.video if not one.disposition & _COVER]
    if not videos:
        covers = len(container.streams.video)
        raise UnreadableMedia(source, "sound with a cover, no video" if covers else "no video stream")
    best = container.streams.best("video")
    return best if best in videos else videos[0]


def _frames(source: Source, container, stream) -> Iterator[tuple[int | None, av.VideoFrame]]:
    """Decoded frames with their time stamps, in order of display."""
    clock = _Clock()
    found = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            if found or packet.is_keyframe:
                raise
            continue  # recordings and cut transport streams begin before a keyframe
        for frame in frames:
            found = True
            ticks = clock.time(frame.pts, frame.dts)
            if frame.is_corrupt:
                at = f" at {float(ticks * stream.time_base):.2f} s" if ticks is not None else ""
                raise UnreadableMedia(source, f"corrupt frame{at}")
            yield ticks, frame


class _Clock:
    """Chooses between the presentation and the decoding time of frames.

    As FFmpeg's best effort: the presentation time, unless it contradicts the order of frames more
    often than the decoding time does, which is the only one that AVI has.
    """

    def __init__(self) -> None:
        self._last: list[int | None] = [None, None]
        self._faults = [0, 0]

    def time(self, presented: int | None, decoded: int | None) -> int | None:
        """The time of the next frame in ticks, or None."""
        times = (presented, decoded)
        for which, ticks in enumerate(times):
            last = self._last[which]
            if ticks is not None:
                self._faults[which] += last is not None and ticks <= last
                self._last[which] = ticks
            elif times[1 - which] is not None:
                self._last[which] = times[1 - which]
        if presented is None or (decoded is not None and self._faults[0] > self._faults[1]):
            return decoded
        return presented
