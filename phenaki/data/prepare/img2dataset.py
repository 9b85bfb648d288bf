"""Images as img2dataset stores them: white bars to a square, and EXIF's orientation not applied.

Both are known from the metadata of an image only: the file itself says nothing of them.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from phenaki.io.images import MAX_PIXELS

WHITE = 250  # mean level of a bar; JPEG blurs its inner edge
ORIENTATION = 0x0112  # EXIF's tag
# The names of EXIF's orientations 1 to 8 in the metadata, and how Pillow undoes them.
_NAMES = (
    "Horizontal (normal)",
    "Mirrored horizontal",
    "Rotated 180",
    "Mirrored vertical",
    "Mirrored horizontal then rotated 90 CCW",
    "Rotated 90 CW",
    "Mirrored horizontal then rotated 90 CW",
    "Rotated 90 CCW",
)
_UNDONE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # of Pillow's that PNG has


def size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height) before padding, in the metadata of an image; None if it may not be padded."""
    try:
        width, height = (int(content[f"original_{side}"]) for side in ("width", "height"))
    except (LookupError, TypeError, ValueError):
        return None
    return (width, height) if min(width, height) > 0 and width != height else None


def orientation(content: Mapping[str, Any]) -> int:
    """EXIF's orientation of the pixels, 1 to 8, in the metadata of an image."""
    exif = content.get("exif")
    try:
        exif = json.loads(exif) if isinstance(exif, str | bytes) else exif
    except ValueError:
        return 1
    name = exif.get("Image Orientation") if isinstance(exif, dict) else None
    return _NAMES.index(name) + 1 if name in _NAMES else 1


def box(pixels: UInt8[np.ndarray, "h w *c"], before: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a square image without its white bars; all of it without any.

    Args:
        before: (width, height) of the image before it was padded.
    """
    height, width = pixels.shape[:2]
    inner = [round(side * width / max(before)) for side in before]
    left, top = ((width - side) // 2 for side in inner)
    # One pixel more: JPEG blurs the edge.
    kept = (left + (left > 0), top + (top > 0))
    right, bottom = width - kept[0], height - kept[1]
    bars = [pixels[:top], pixels[height - top :], pixels[:, :left], pixels[:, width - left :]]
    white = all(bar.mean() >= WHITE for bar in bars if bar.size)
    if width != height or not left + top or not white or min(right - kept[0], bottom - kept[1]) < 1:
        return 0, 0, width, height
    return *kept, right, bottom


def restore(
    file: io.BufferedIOBase, before: tuple[int, int] | None, turned: int
) -> io.BufferedIOBase:
    """An image file without white bars and upright, as PNG; the file itself if it is so already.

    Args:
        file: closed if another is returned.
        before: (width, height) before padding; None if unknown.
        turned: EXIF's orientation of the pixels; one in the file itself is used instead.
    """
    upright = None
    source: Any = file
    # Damaged and huge files too are left to the reader of images, which says what is wrong.
    with contextlib.suppress(Exception), Image.open(source) as image:
        if image.width * image.height <= MAX_PIXELS:
            upright = _restored(image, before, turned)
    file.seek(0)
    if upright is None:
        return file
    file.close()
    return _png(upright)


def _restored(
    image: Image.Image, before: tuple[int, int] | None, turned: int
) -> Image.Image | None:
    """The image that `restore` returns as a file; None if nothing is to be done."""
    whole = (0, 0, *image.size)
    kept = box(np.asarray(image.convert("L")), before) if before else whole
    own = image.getexif().get(ORIENTATION, 1) != 1
    if kept == whole and (own or turned not in _UNDONE):
        return None
    cut = image.crop(kept)
    if own:
        return ImageOps.exif_transpose(cut)
    return cut.transpose(_UNDONE[turned]) if turned in _UNDONE else cut


def _png(image: Image.Image) -> io.BytesIO:
    if image.mode not in _MODES:
        image = image.convert("RGB")
    buffer = io.BytesIO()
    # Not compressed: it is read once, at once.
    image.save(buffer, "PNG", compress_level=0, icc_profile=image.info.get("icc_profile"))
    buffer.seek(0)
    return buffer
