"""Videos and images to files that open everywhere: mp4, gif, png and labelled sheets.

Everything takes RGB as uint8 or as float in [0, 1]: a video is [f h w 3], an image [h w 3]. Wrong
rank, type or range is a ValueError that names it; a path that cannot be written is an OSError with
its filename. `scale` enlarges by an integer factor without smoothing, for small videos.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import matplotlib
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from phenaki.errors import UserError

PathLike = str | os.PathLike[str]
BT709 = 1  # the code of primaries, transfer and matrix alike
GIF_MAX_FPS = 50  # browsers slow down frames shorter than 20 ms


def as_uint8(video: Any, rank: int = 4) -> UInt8[np.ndarray, "..."]:
    """RGB bytes of a video (rank 4, [f h w 3]) or an image (rank 3), from uint8 or [0, 1]."""
    array = np.asarray(video)
    what, layout = ("a video", "[f h w 3]") if rank == 4 else ("an image", "[h w 3]")
    if array.ndim != rank or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(f"shape {array.shape} of {what} must be {layout}, none of them 0.")
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
    """Each pixel becomes a square of `scale` by `scale`."""
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale={scale} must be an integer of at least 1.")
    return video.repeat(scale, axis=-3).repeat(scale, axis=-2)


def scale_to_see(height: int, width: int, side: int = 256) -> int:
    """The largest `scale` that keeps the longer side within `side` pixels, at least 1."""
    return max(1, side // max(height, width))


class Mp4Writer:
    """Writes frames to an h264 mp4 as they come, in constant memory.

        with Mp4Writer("story.mp4", fps=8) as writer:
            writer.append(frames)  # [f h w 3], any number of times

    8-bit 4:2:0 in BT.709, limited range, tagged as such; odd sizes gain one repeated row or column.
    `chapters` are (title, first frame, end), for players that list them. The file appears under its
    name when the block ends; after an exception nothing is left behind.
    """

    def __init__(
        self,
        path: PathLike,
        fps: float | int,
        scale: int = 1,
        quality: int = 14,
        chapters: Sequence[tuple[str, int, int]] = (),
    ):
        """`fps` in frames per second; `quality` is x264's CRF, 0 (lossless) to 51."""
        if not 0 < fps < 1000:
            raise ValueError(f"fps={fps} must lie between 0 and 1000.")
        self.path, self.scale, self.quality = Path(path), scale, quality
        self.rate = Fraction(fps).limit_denominator(1001)
        self.frames = 0
        self._chapters = chapters
        self._size: tuple[int, ...] = ()  # height and width, known from the first frame on
        # The suffix names the format, so it stays last.
        self._partial = self.path.with_name(f".{self.path.name}.partial.mp4")

    def __enter__(self) -> "Mp4Writer":
        with _named(self.path):
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._partial.open("wb").close()  # FFmpeg would complain at the first frame only
            self._container = av.open(str(self._partial), "w", options={"movflags": "+faststart"})
            self._container.set_chapters(
                [
                    dict(id=i, start=a, end=b, time_base=1 / self.rate, metadata={"title": title})
                    for i, (title, a, b) in enumerate(self._chapters)
                ]
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                with contextlib.suppress(OSError):  # the first error is the one to see
                    self._container.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self.frames:
            raise ValueError(f"{self.path}: no frame was given.")
        with _named(self.path):
            self._write(None)
            self._container.close()
            self._partial.replace(self.path)

    def append(self, video: Any) -> None:
        """Add the frames of [f h w 3], of the same height and width each time."""
        video = as_uint8(video)
        if not self.frames:
            self._size = video.shape[1:3]
            self._stream = self._open_stream()
        if video.shape[1:3] != self._size:
            raise ValueError(
                f"frames of {video.shape[1:3]} must be {self._size} as the first ones."
            )
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
        # Left to itself the encoder would convert with BT.601 whatever the tags say.
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
def _named(path: Path) -> Iterator[None]:
    """Let every OSError from inside name `path` instead of a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def write_mp4(path: PathLike, video: Any, fps: float | int, scale: int = 1) -> None:
    """Write a whole video [f h w 3] as `Mp4Writer` does."""
    video = as_uint8(video)
    with Mp4Writer(path, fps, scale) as writer:
        writer.append(video)


def write_gif(path: PathLike, video: Any, fps: float | int, scale: int = 1) -> None:
    """Write an endless gif with one palette for the whole clip, so that still areas do not flicker.

    A clip of at most 256 colours keeps them exactly. `fps` is at most 50; the durations, which gif
    counts in hundredths of a second, add up to the true time. Equal neighbours become one frame.
    """
    video = as_uint8(video)
    if not 0 < fps <= GIF_MAX_FPS:
        raise ValueError(f"fps={fps} of a gif must lie between 0 and {GIF_MAX_FPS}.")
    palette, indices = _shared_palette(video)
    images = []
    for frame in indices:
        pixels = enlarge(frame[..., None], scale)
        image = Image.frombytes("P", pixels.shape[1::-1], pixels.tobytes())
        image.putpalette(palette.tobytes())
        images.append(image)
    ends = np.rint(np.arange(len(images) + 1) * 100 / fps).astype(int) * 10  # ms
    with open(path, "wb") as file:
        images[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=np.diff(ends).tolist(),
            loop=0,
            disposal=1,
            optimize=False,
        )


def _shared_palette(
    video: UInt8[np.ndarray, "f h w 3"],
) -> tuple[UInt8[np.ndarray, "p 3"], UInt8[np.ndarray, "f h w"]]:
    """At most 256 colours for a clip, and the nearest one's index for every pixel."""
    present = np.zeros(1 << 24, bool)
    for frame in video:
        present[_packed(frame)] = True
    packed = np.flatnonzero(present)
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
    palette = colours
    if len(colours) > 256:
        # Every colour counts once: a small red ball must not lose its red to a large gray sky.
        some = colours[:: 1 + len(colours) // 65536][None]
        reduced = Image.fromarray(some).quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3)
        palette = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
    nearest = np.zeros(1 << 24, np.uint8)
    wanted = palette.astype(np.float32)
    for start in range(0, len(colours), 1 << 16):
        part = colours[start : start + (1 << 16)].astype(np.float32)
        distance = np.square(wanted).sum(-1) - 2 * part @ wanted.T
        nearest[packed[start : start + (1 << 16)]] = distance.argmin(-1)
    return palette, np.stack([nearest[_packed(frame)] for frame in video])


def _packed(image: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    red, green, blue = np.moveaxis(image.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue


def write_png(path: PathLike, image: Any, scale: int = 1) -> None:
    """Write one image [h w 3]."""
    picture = Image.fromarray(enlarge(as_uint8(image, rank=3), scale))
    with open(path, "wb") as file:
        picture.save(file, format="PNG")


def sheet(
    videos: Sequence[Any], captions: Sequence[str | None], frames: int = 8, scale: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """One row per clip, its caption above: `frames` frames spread evenly from first to last.

    `videos` are [f h w 3], of any lengths and sizes. Without `scale` small frames are enlarged to
    about 96 pixels. The result is for `write_png`.
    """
    if len(videos) != len(captions) or not len(videos):
        raise ValueError(f"{len(videos)} videos and {len(captions)} captions: pass one of each.")
    strips = [_strip(as_uint8(video), frames, scale) for video in videos]
    width = max([480, *(strip.shape[1] for strip in strips)])
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 15)
    rows = []
    for strip, caption in zip(strips, captions, strict=True):
        rows.append(_label(caption or "(no caption)", font, width))
        filling = ((0, 0), (0, width - strip.shape[1]), (0, 0))
        rows.append(np.pad(strip, filling, constant_values=255))
    return np.concatenate(
        [np.pad(row, ((4, 4), (8, 8), (0, 0)), constant_values=255) for row in rows]
    )


def _strip(video: UInt8[np.ndarray, "f h w 3"], frames: int, scale: int | None) -> np.ndarray:
    """Frames side by side with a thin gap."""
    chosen = np.unique(np.rint(np.linspace(0, len(video) - 1, frames)).astype(int))
    height, width = video.shape[1:3]
    video = enlarge(video[chosen], scale or scale_to_see(height, width, side=96))
    gaps = np.pad(video, ((0, 0), (0, 0), (0, 4), (0, 0)), constant_values=255)
    return np.concatenate(list(gaps), axis=1)[:, :-4]


def _label(text: str, font: ImageFont.FreeTypeFont, width: int) -> np.ndarray:
    """Black text on white, wrapped at words to `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    image = Image.new("RGB", (width, 20 * len(lines)), "white")
    ImageDraw.Draw(image).multiline_text((0, 0), "\n".join(lines), "black", font, spacing=4)
    return np.asarray(image)


def read_image(
    path: PathLike, size: tuple[int, int], say: Callable[[str], object] | None = None
) -> Float32[np.ndarray, "h w 3"]:
    """Read an image to [0, 1] and `size` (height, width): upright, resized, its centre cropped.

    An image of another size is resized with antialiasing; `say` is told so in a sentence. Raises
    UserError, naming the file, if it is no readable image.
    """
    height, width = size
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255 instead of scaling
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if say is not None and image.size != (width, height):
                say(
                    f"{os.fspath(path)}: {image.width}x{image.height} px are resized, and their "
                    f"centre cropped, to {width}x{height}."
                )
            image = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
    except OSError as error:
        if error.filename is not None:
            raise
        raise UserError(f"{os.fspath(path)}: not an image that can be read ({error}).") from None
    return np.asarray(image, np.float32) / 255
