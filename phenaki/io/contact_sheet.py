"""Contact sheets: a few frames of every clip in a row, a caption above it."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from phenaki.io import media


def contact_sheet(
    videos: Sequence[Any], captions: Sequence[str | None], frames: int = 8, scale: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet for `media.write_png`: one row per clip, its caption above.

    A row shows `frames` frames, evenly spaced from first to last. `videos` are [f h w 3], of any
    length and size; without `scale` small frames are enlarged to about 96 pixels.
    """
    if len(videos) != len(captions) or not len(videos):
        raise ValueError(f"{len(videos)} videos and {len(captions)} captions: pass one of each.")
    strips = [_strip(media.as_uint8(video), frames, scale) for video in videos]
    width = max([480, *(strip.shape[1] for strip in strips)])
    letters = font(15)
    rows = []
    for strip, caption in zip(strips, captions, strict=True):
        rows.append(_label(caption or "(no caption)", letters, width))
        filling = ((0, 0), (0, width - strip.shape[1]), (0, 0))
        rows.append(np.pad(strip, filling, constant_values=255))
    return np.concatenate(
        [np.pad(row, ((4, 4), (8, 8), (0, 0)), constant_values=255) for row in rows]
    )


def font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font, found without the import, which takes longer than a sheet.

    Pillow's has few letters beyond those of English.
    """
    found = importlib.util.find_spec("matplotlib")
    assert found is not None and found.origin is not None
    file = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(file, size)


def _strip(video: UInt8[np.ndarray, "f h w 3"], frames: int, scale: int | None) -> np.ndarray:
    """Frames in a row with a thin gap."""
    chosen = np.unique(np.rint(np.linspace(0, len(video) - 1, frames)).astype(int))
    height, width = video.shape[1:3]
    video = media.enlarge(video[chosen], scale or media.scale_to_see(height, width, side=96))
    gaps = np.pad(video, ((0, 0), (0, 0), (0, 4), (0, 0)), constant_values=255)
    return np.concatenate(list(gaps), axis=1)[:, :-4]


def _label(text: str, letters: ImageFont.FreeTypeFont, width: int) -> np.ndarray:
    """Renders black text on white, wrapped at words to `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and letters.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    image = Image.new("RGB", (width, 20 * len(lines)), "white")
    ImageDraw.Draw(image).multiline_text((0, 0), "\n".join(lines), "black", letters, spacing=4)
    return np.asarray(image)
