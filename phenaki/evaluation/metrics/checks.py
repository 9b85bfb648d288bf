"""Checks of clips before they are measured, with one-line errors."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from phenaki.errors import UserError

BELOW, ABOVE = -0.01, 1.01  # tolerates rounding; outputs of networks are clipped before


def clips(video: Any, what: str = "clips", frames: int = 1) -> None:
    """Checks that `video` is float [b f h w 3] in [0, 1] with `frames` frames or more.

    Raises:
        UserError: it is not; names the range where it is a known one (bytes, [-1, 1], bytes
            divided twice). `what` names the clips.
    """
    if isinstance(video, list | tuple) and len({np.shape(clip) for clip in video}) > 1:
        sizes = ", ".join(sorted({"x".join(map(str, np.shape(clip)[:3])) for clip in video}))
        raise UserError(f"{what}: are of mixed sizes ({sizes}); resize and cut them alike first.")
    video = np.asarray(video)
    if video.ndim != 5 or video.shape[-1] != 3:
        raise UserError(f"{what}: are {video.shape}; they must be [b f h w 3].")
    if video.shape[1] < frames:
        raise UserError(
            f"{what}: have {video.shape[1]} frames; this measure needs {frames} or more."
        )
    if not video.size:
        raise UserError(f"{what}: are {video.shape}; there is nothing in them.")
    if video.dtype == np.uint8:
        raise UserError(f"{what}: are bytes, 0..255; divide by 255 to have 0..1.")
    if not jnp.issubdtype(video.dtype, jnp.floating):
        raise UserError(f"{what}: are {video.dtype}; they must be floating point in 0..1.")
    low, high = (float(x) for x in (video.min(), video.max()))
    if not np.isfinite((low, high)).all():
        raise UserError(f"{what}: hold values that are not finite; look for NaN in the model.")
    if BELOW <= low and high <= ABOVE:
        if 0 < high <= 1 / 255 + 1e-6:
            raise UserError(f"{what}: reach {high:.5f} only; bytes seem divided by 255 twice.")
        return
    if low < BELOW and max(-low, high) <= ABOVE:
        guess = "[-1, 1]; add 1 and halve"
    elif low >= BELOW and ABOVE < high <= 255.5:
        guess = "0..255; divide by 255"
    else:
        guess = "of no known kind; clip to [0, 1]"
    raise UserError(f"{what}: reach from {low:.4g} to {high:.4g}: looks {guess}. Must be 0..1.")


def pairs(real: Any, fake: Any, frames: int = 1) -> None:
    """`clips` for both sets, which must have one shape to be compared frame by frame."""
    clips(real, "real clips", frames)
    clips(fake, "generated clips", frames)
    if np.shape(real) != np.shape(fake):
        raise UserError(
            f"real clips are {np.shape(real)}, generated ones {np.shape(fake)}; they must be of "
            "one size."
        )


def same_size(real: tuple[int, int, int], fake: tuple[int, int, int]) -> None:
    """Checks that two sets have the same (frames, height, width).

    Networks resize their input, so a distance of sets of different resolution could be computed,
    but would not compare.

    Raises:
        UserError: they differ.
    """
    if real != fake:
        (f, h, w), (g, i, j) = real, fake
        raise UserError(
            f"the reference set has clips of {f}x{h}x{w}, the generated ones {g}x{i}x{j}; "
            f"prepare the reference with --frames={g} --size={i}x{j}."
        )
