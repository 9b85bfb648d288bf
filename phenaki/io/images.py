"""The reader of image files: upright 8-bit sRGB over white, and the resize that fits a clip.

`prepare_data.py`, `--image` and the images of a storyboard all read with it, so that a model sees
the same pixels in training and in sampling.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from phenaki.errors import UserError
from phenaki.io import pixels, signatures
from phenaki.io.quiet import no_warnings

ANIMATED = ("PNG", "WEBP", "AVIF")  # formats of images whose frames follow each other in time
MAX_PIXELS = 2**26  # 8192 x 8192: headers that claim more are usually corrupt


class UnreadableMedia(ValueError):
    """An image or a video that cannot be decoded. `reason` is one short line without the path."""

    def __init__(self, path: object, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        path = str(self).removesuffix(f": {self.reason}")
        return type(self), (path, self.reason)


def read_image(source: Path | str | io.BufferedIOBase) -> Image.Image:
    """Decodes an image as 8-bit sRGB: EXIF orientation and ICC profile applied, over white.

    Of an animation it is the first frame. Pixels of more bits are scaled as in `pixels.srgb`.

    Raises:
        UnreadableMedia: not an image, truncated, or larger than `MAX_PIXELS`.
    """
    return next(read_frames(source))[0]


def read_frames(
    source: Path | str | io.BufferedIOBase,
) -> Iterator[tuple[Image.Image, Fraction | None]]:
    """Yields the frames of an animated PNG, WebP or AVIF and how many seconds each is shown.

    Other images have one frame, whose time is None. Pixels and errors are those of `read_image`.
    """
    with decode_errors(source), opened(source) as file:
        if signatures.is_heif(signatures.head_of(file)):
            raise UnreadableMedia(source, "HEIC: convert it to JPEG or PNG")
        tags = signatures.colour_tags(file)
        image = _quiet(Image.open, file)
        check_size(source, image.width, image.height)
        animated = image.format in ANIMATED and getattr(image, "n_frames", 1) > 1
        # An animated PNG may begin with an image for readers that know no animations.
        first = int(animated and getattr(image, "default_image", False))
        for number in range(first, image.n_frames if animated else 1):
            frame = _quiet(_frame, source, image, number, tags)
            lasts = image.info.get("duration", 0) if animated else None
            yield frame, None if lasts is None else Fraction(lasts).limit_denominator(10**6) / 1000


@contextlib.contextmanager
def opened(source: Path | str | io.BufferedIOBase) -> Iterator[io.BufferedIOBase]:
    """Opens a path; an open file stays open."""
    if isinstance(source, Path | str):
        with open(source, "rb") as file:
            yield file
    else:
        yield source


def _frame(
    source: object, image: Image.Image, number: int, tags: tuple[int, int] | None
) -> Image.Image:
    if number:
        image.seek(number)
    image.load()
    stored = pixels.integers(image)
    try:
        return pixels.srgb(ImageOps.exif_transpose(image), stored, tags)
    except pixels.UnknownRange as error:
        raise UnreadableMedia(source, str(error)) from None


def _quiet(function: Callable, *arguments: object) -> Any:
    with no_warnings():  # of EXIF blocks and palettes that Pillow repairs
        return function(*arguments)


def fit(
    image: Image.Image,
    height: int,
    width: int,
    crop: tuple[float, float] = (0.5, 0.5),
    aspect: float = 1.0,
) -> UInt8[np.ndarray, "h w 3"]:
    """Resizes with antialiasing until the image covers `height` x `width`, and crops the rest.

    Args:
        crop: position of the crop (vertical, horizontal): 0 is top or left, 1 is bottom or right.
        aspect: width / height of a source pixel.
    """
    scale = max(height / image.height, width / (image.width * aspect))
    window_height = min(height / scale, image.height)
    window_width = min(width / scale / aspect, image.width)
    top = (image.height - window_height) * crop[0]
    left = (image.width - window_width) * crop[1]
    box = (left, top, left + window_width, top + window_height)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


def read_frame(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    log: Callable[[str], object] | None = None,
) -> Float32[np.ndarray, "h w 3"]:
    """Reads an image file as a frame in [0, 1] of `size` (height, width), cropped at the centre.

    Args:
        log: called with a sentence if the image has another size.

    Raises:
        UserError: not a readable image; names the file.
        OSError: the file cannot be opened.
    """
    height, width = size
    try:
        with open(path, "rb") as file:
            image = read_image(file)
    except UnreadableMedia as error:
        raise UserError(f"{os.fspath(path)}: not an image ({error.reason}).") from None
    if log is not None and image.size != (width, height):
        log(
            f"{os.fspath(path)}: {image.width}x{image.height} px resized and center-cropped to "
            f"{width}x{height}."
        )
    return fit(image, height, width).astype(np.float32) / 255


def local(path: str | os.PathLike[str]) -> str:
    """The name of a local file for FFmpeg, which reads "a:b.mp4" as a protocol and its address."""
    return f"file:{os.fspath(path)}"


def check_size(source: object, width: int, height: int) -> None:
    """Raises `UnreadableMedia` for an empty image, or one of more than `MAX_PIXELS`."""
    if width < 1 or height < 1:
        raise UnreadableMedia(source, "no image size")
    if width * height > MAX_PIXELS:
        raise UnreadableMedia(source, f"{width} x {height} pixels; the limit is {MAX_PIXELS}")


@contextlib.contextmanager
def decode_errors(source: object, where: Callable[[], str] = str) -> Iterator[None]:
    """Converts exceptions of FFmpeg and Pillow on bad files into `UnreadableMedia`.

    Args:
        where: called on an error; its string is appended to "not readable".
    """
    try:
        yield
    except (UnreadableMedia, MemoryError):
        raise
    except Exception as error:  # Pillow alone raises eight types on broken files
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        text = text.replace(str(source), "file").strip().splitlines()[0]
        raise UnreadableMedia(
            source, f"not readable{where()}: {text[:1].lower()}{text[1:]}"
        ) from error
