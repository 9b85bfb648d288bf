"""Writers of mp4, gif and png files.

All take RGB as uint8 or as float in [0, 1]: a video is [f h w 3], an image [h w 3]. Wrong rank,
dtype or range raises a ValueError that names it; a path that cannot be written raises an OSError
with its filename. `scale` enlarges by an integer factor without smoothing, for small videos.
"""

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from phenaki.io import artifacts, paths, provenance
from phenaki.io.images import local
from phenaki.io.palette import shared_palette
from phenaki.io.paths import AnyPath, PathLike

BT709 = 1  # H.273 code of the primaries, of the transfer function and of the matrix
GIF_MAX_FPS = 50  # browsers slow down frames shorter than 20 ms


def as_uint8(video: Any, rank: int = 4) -> UInt8[np.ndarray, "..."]:
    """Converts a video (rank 4, [f h w 3]) or an image (rank 3), uint8 or in [0, 1], to uint8."""
    array = np.asarray(video)
    what, layout = ("a video", "[f h w 3]") if rank == 4 else ("an image", "[h w 3]")
    if array.ndim != rank or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"shape {array.shape} of {what} must be {layout}, no axis 0.")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind in "biuOSUc":
        raise ValueError(f"dtype {array.dtype} of {what} must be uint8 (0-255) or float (0-1).")
    array = array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also refuses NaN
        raise ValueError(
            f"values from {low:.3g} to {high:.3g} must lie in [0, 1]; clip them first."
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def enlarge(video: UInt8[np.ndarray, "*f h w c"], scale: int) -> UInt8[np.ndarray, "*f H W c"]:
    """Repeats each pixel as a square of `scale` x `scale`."""
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale={scale} must be an integer of at least 1.")
    return video.repeat(scale, axis=-3).repeat(scale, axis=-2)


def scale_to_see(height: int, width: int, side: int = 256) -> int:
    """The largest `scale` that keeps the longer side within `side` pixels, at least 1."""
    return max(1, side // max(height, width))


class Mp4Writer:
    """Streams frames to an h264 mp4 in constant memory.

        with Mp4Writer("story.mp4", fps=8) as writer:
            writer.append(frames)  # [f h w 3], any number of times

    8-bit 4:2:0 in BT.709, limited range, tagged as such; odd sizes gain one repeated row or column.
    `chapters` are (title, first frame, end), for players that list them. The file appears under its
    name when the block ends; after an exception there is no file.
    """

    def __init__(
        self,
        path: PathLike,
        fps: float | int,
        scale: int = 1,
        quality: int = 14,
        chapters: Sequence[tuple[str, int, int]] = (),
        facts: provenance.Facts | None = None,
    ):
        """`fps` in frames per second; `quality` is x264's CRF, 0 (lossless) to 51.

        `facts` say how the video was made; they become its metadata.
        """
        if not 0 < fps < 1000:
            raise ValueError(f"fps={fps} must lie between 0 and 1000.")
        self.path, self.scale, self.quality = paths.path(path), scale, quality
        self.rate = Fraction(fps).limit_denominator(1001)
        self.frames = 0
        self._chapters, self._facts = chapters, facts
        self._size: tuple[int, ...] = ()  # height and width, set by the first frame

    def __enter__(self) -> "Mp4Writer":
        with contextlib.ExitStack() as stack, _named(self.path):
            if isinstance(self.path, Path) and self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            partial = stack.enter_context(artifacts.atomic(self.path))
            partial.open("wb").close()  # FFmpeg itself fails at the first frame only
            self._container = av.open(
                local(partial), "w", format="mp4", options={"movflags": "+faststart"}
            )
            self._container.metadata.update(provenance.tags(self._facts))
            self._container.set_chapters(
                [
                    dict(id=i, start=a, end=b, time_base=1 / self.rate, metadata={"title": title})
                    for i, (title, a, b) in enumerate(self._chapters)
                ]
            )
            self._replaces = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # the first error is the one to see
                self._container.close()
            self._replaces.__exit__(kind, error, trace)
            return
        with _named(self.path), self._replaces:
            if not self.frames:
                raise ValueError(f"{self.path}: no frame was given.")
            self._write(None)
            self._container.close()

    def append(self, video: Any) -> None:
        """Appends frames [f h w 3]; height and width are the same in each call."""
        video = as_uint8(video)
        if not self.frames:
            self._size = video.shape[1:3]
            self._stream = self._open_stream()
        if video.shape[1:3] != self._size:
            raise ValueError(f"frames of {video.shape[1:3]} must be {self._size}, like the first.")
        with _named(self.path):
            for image in video:
                self._write(self._frame(image))
                self.frames += 1

    def _open_stream(self) -> av.VideoStream:
        height, width = (side * self.scale + side * self.scale % 2 for side in self._size)
        stream = self._container.add_stream("libx264", rate=self.rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Without B-frames the first frame is at time 0 for every reader.
        stream.options = {"crf": str(self.quality), "preset": "medium", "bf": "0"}
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = ColorRange.MPEG
        return stream

    def _frame(self, image: UInt8[np.ndarray, "h w 3"]) -> av.VideoFrame:
        image = enlarge(image, self.scale)
        odd = [(0, side % 2) for side in image.shape[:2]]
        image = np.ascontiguousarray(np.pad(image, [*odd, (0, 0)], mode="edge"))
        # The encoder's own conversion is BT.601, whatever the tags are.
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts, frame.time_base = self.frames, 1 / self.rate
        return frame

    def _write(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


@contextlib.contextmanager
def _named(path: AnyPath) -> Iterator[None]:
    """Makes every OSError of the block name `path` instead of the temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def write_mp4(
    path: PathLike,
    video: Any,
    fps: float | int,
    scale: int = 1,
    facts: provenance.Facts | None = None,
) -> None:
    """Writes a video [f h w 3] with `Mp4Writer`."""
    video = as_uint8(video)
    with Mp4Writer(path, fps, scale, facts=facts) as writer:
        writer.append(video)


def gif_frames(video: Any, fps: float | int) -> tuple[Any, float | int]:
    """`video` and `fps` for `write_gif`: every nth frame of one that is too fast for a gif."""
    step = math.ceil(fps / GIF_MAX_FPS)
    return video[::step], fps / step if step > 1 else fps


def write_gif(
    path: PathLike,
    video: Any,
    fps: float | int,
    scale: int = 1,
    facts: provenance.Facts | None = None,
) -> None:
    """Writes a looping gif with one palette for the clip, so that static areas do not flicker.

    A clip of at most 256 colours keeps them exactly. `fps` is at most 50. Gif counts durations in
    1/100 s; they are rounded so that their sum is right. Equal consecutive frames become one.
    """
    video = as_uint8(video)
    if not 0 < fps <= GIF_MAX_FPS:
        raise ValueError(f"fps={fps} of a gif must lie between 0 and {GIF_MAX_FPS}.")
    palette, indices = shared_palette(video)
    images = []
    for frame in indices:
        pixels = enlarge(frame[..., None], scale)
        image = Image.frombytes("P", pixels.shape[1::-1], pixels.tobytes())
        image.putpalette(palette.tobytes())
        images.append(image)
    tags = provenance.tags(facts)
    ends = np.rint(np.arange(len(images) + 1) * 100 / fps).astype(int) * 10  # ms
    with artifacts.atomic(path) as partial, partial.open("wb") as file:
        images[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=np.diff(ends).tolist(),
            loop=0,
            disposal=1,
            optimize=False,
            **({"comment": tags["comment"].encode()} if tags else {}),
        )


def write_png(
    path: PathLike, image: Any, scale: int = 1, facts: provenance.Facts | None = None
) -> None:
    """Writes an image [h w 3]."""
    tags = PngImagePlugin.PngInfo()
    for name, value in provenance.tags(facts).items():
        tags.add_itxt(name, value)
    pixels = enlarge(as_uint8(image, rank=3), scale)
    with artifacts.atomic(path) as partial, partial.open("wb") as file:
        Image.fromarray(pixels).save(file, format="PNG", pnginfo=tags)
