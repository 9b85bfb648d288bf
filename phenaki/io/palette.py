"""One palette of at most 256 colours for a whole clip, as a gif needs it."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def shared_palette(
    video: UInt8[np.ndarray, "f h w 3"],
) -> tuple[UInt8[np.ndarray, "p 3"], UInt8[np.ndarray, "f h w"]]:
    """Returns (palette, indices): the colours, and per pixel the index of the nearest one.

    A clip of at most 256 colours keeps them exactly.
    """
    present = np.zeros(1 << 24, bool)
    for frame in video:
        present[_packed(frame)] = True
    packed = np.flatnonzero(present)
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
    palette = colours
    if len(colours) > 256:
        # Each colour counts once, however many pixels have it: a small red ball keeps its red in
        # front of a large gray sky.
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
