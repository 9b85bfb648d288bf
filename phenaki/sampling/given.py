"""Frames and prompts that callers give: what is unambiguous is converted, the rest is refused."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Bool

from phenaki.errors import UserError

ROUNDING = 1e-3  # by which values may leave [0, 1], as after a resize


def frames(video: Any, known: Bool[np.ndarray, "..."] | None = None) -> np.ndarray:
    """`video` as float32 in [0, 1]; uint8 is divided by 255, which is logged once.

    Args:
        video: any shape whose last axis are colours.
        known: of the shape of `video` without colours; values elsewhere do not matter.

    Raises:
        UserError: it is a path, masked, neither uint8 nor floating point, or has NaN or values
            outside [0, 1].
    """
    if isinstance(video, str | os.PathLike):
        raise UserError(
            f"given frames are the path {os.fspath(video)!r}; phenaki.io.images.read_frame(path, "
            "(height, width)) reads an image."
        )
    array = as_array(video)
    if np.ma.is_masked(video):
        raise UserError(
            "given frames are a masked array, whose mask would be lost; fill it, and say with "
            "known= what is known."
        )
    if array.dtype == np.uint8:
        _say_once()
        return array.astype(np.float32) / np.float32(255)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(
            f"given frames are {array.dtype}; they must be uint8, 0 to 255, or floating point in "
            "[0, 1]."
        )
    array = array.astype(np.float32)
    values = array if known is None else array[np.broadcast_to(known, array.shape[:-1])]
    if not values.size:
        return array
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("given frames have NaN or infinity; they must lie in [0, 1].")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UserError(
            f"given frames have values from {low:.4g} to {high:.4g}; they must lie in [0, 1]. Give "
            "uint8, or divide 0..255 by 255."
        )
    return array if 0 <= low <= high <= 1 else np.clip(array, 0, 1)


def as_array(video: Any) -> np.ndarray:
    """`video` as an array; raises `UserError` for lists of unequal lengths."""
    try:
        return np.asarray(video)
    except ValueError as error:
        raise UserError(f"given frames are no array ({error}).") from None


@functools.cache
def _say_once() -> None:
    logging.warning("frames of uint8 are taken as 0 to 255 and divided by 255.")


def check_task(method: str, options: Mapping[str, Any]) -> None:
    """Raises `UserError` if a method with a task of its own is given a part of another one's."""
    for name in ("video", "known", "approximate"):
        if name in options:
            raise UserError(
                f"{name}=: Phenaki.{method} takes none; Phenaki.sample and fill do, around any "
                "part of a clip."
            )


def prompts(texts: Any) -> Sequence[str | None]:
    """`texts`, if they are a sequence of one text or None a sample.

    Raises:
        UserError: they are one text, no sequence, or have something else.
    """
    if isinstance(texts, str | bytes):
        raise UserError(f"prompts={texts!r}: must be a list, one a sample; give [{texts!r}].")
    ordered = isinstance(texts, Iterable) and not isinstance(texts, Set | Mapping)
    if not ordered or (isinstance(texts, np.ndarray) and not texts.ndim):
        raise UserError(f"prompts={texts!r}: must be a list of texts, one a sample.")
    texts = list(texts)
    for text in texts:
        if text is not None and not isinstance(text, str):
            raise UserError(f"prompts: {text!r} must be a text, or None for a sample without text.")
    if not texts:
        raise UserError("prompts: there is none; give one a sample, None for one without text.")
    return texts
