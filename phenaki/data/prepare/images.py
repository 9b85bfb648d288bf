"""Pictures to upright 8 bit RGB, at the size of a clip; what cannot be read says why in a line."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

MAX_PIXELS = 2**26  # 8192 x 8192: larger headers are far more often broken than real


class UnreadableMedia(ValueError):
    """A file that cannot be used. `reason` is one short line without the path."""

    def __init__(self, path: object, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason

    def __reduce__(self):
        path = str(self).removesuffix(f": {self.reason}")
        return type(self), (path, self.reason)


def fit(
    image: Image.Image,
    height: int,
    width: int,
    crop: tuple[float, float] = (0.5, 0.5),
    aspect: float = 1.0,
) -> UInt8[np.ndarray, "h w 3"]:
    """Resizes, antialiased, until the crop just fits; `aspect` is width / height of a pixel."""
    scale = max(height / image.height, width / (image.width * aspect))
    window_height = min(height / scale, image.height)
    window_width = min(width / scale / aspect, image.width)
    top = (image.height - window_height) * crop[0]
    left = (image.width - window_width) * crop[1]
    box = (left, top, left + window_width, top + window_height)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


def read_image(path: Path | str | io.BufferedIOBase) -> Image.Image:
    """Opens a still as 8 bit RGB: EXIF orientation applied, transparency over white.

    Raises:
        UnreadableMedia: not an image, truncated, or absurdly large.
    """
    with reasons(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of EXIF blocks and palettes that Pillow repairs itself
        source: Any = path
        with Image.open(source) as image:
            check_size(path, image.width, image.height)
            image.load()
            return _rgb(path, ImageOps.exif_transpose(image))


def _rgb(path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit grey; convert() would clip it at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableMedia(path, "floating point pixels without a known range")
    if image.has_transparency_data:
        return over_white(image.convert("RGBA"))
    return image.convert("RGB")


def over_white(image: Image.Image) -> Image.Image:
    """RGBA to RGB."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def check_size(path: object, width: int, height: int) -> None:
    """Raises UnreadableMedia for no picture, or one of more than MAX_PIXELS."""
    if width < 1 or height < 1:
        raise UnreadableMedia(path, "no picture size")
    if width * height > MAX_PIXELS:
        raise UnreadableMedia(path, f"{width} x {height} pixels; at most {MAX_PIXELS} are read")


@contextlib.contextmanager
def reasons(path: Any, where: Callable[[], str] = str):
    """Turns what FFmpeg and Pillow raise on bad files into `UnreadableMedia`."""
    try:
        yield
    except (UnreadableMedia, MemoryError):
        raise
    except Exception as error:  # Pillow alone raises eight kinds on broken files
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        text = text.replace(str(path), "file").strip().splitlines()[0]
        raise UnreadableMedia(
            path, f"not readable{where()}: {text[:1].lower()}{text[1:]}"
        ) from error
