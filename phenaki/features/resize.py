"""Resize rules: scores depend on the rule, so reports name it.

Those of FID and FVD are bilinear; `area` is that of comparisons by few pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def legacy_bilinear(
    images: Float[Array, "*b h w c"], size: tuple[int, int]
) -> Float[Array, "*b height width c"]:
    """TensorFlow 1's `resize_bilinear`, the rule inside the graphs of the first FID and FVD.

    `size` is (height, width) in pixels. Output pixel i reads position i · inputs / outputs (corners
    not aligned, no half-pixel centres, no antialiasing): the image shifts by up to half a pixel.
    """
    rows = _legacy_weights(images.shape[-3], size[0])
    columns = _legacy_weights(images.shape[-2], size[1])
    # As matrix products: on accelerators gathers are slow, and their gradients slower still.
    highest = jax.lax.Precision.HIGHEST
    wide = jnp.einsum("...hwc,ow->...hoc", images, columns, precision=highest)
    return jnp.einsum("...hwc,oh->...owc", wide, rows, precision=highest)


def _legacy_weights(inputs: int, outputs: int) -> Float[np.ndarray, "outputs inputs"]:
    # TensorFlow's float32 arithmetic: float64 would floor some positions to another pixel.
    position = np.arange(outputs, dtype=np.float32) * (np.float32(inputs) / np.float32(outputs))
    lower = np.minimum(np.floor(position).astype(np.int32), inputs - 1)
    upper = np.minimum(lower + 1, inputs - 1)
    fraction = position - lower.astype(np.float32)
    weights = np.zeros((outputs, inputs), np.float32)
    np.add.at(weights, (np.arange(outputs), lower), 1 - fraction)
    np.add.at(weights, (np.arange(outputs), upper), fraction)
    return weights


def bilinear(
    images: Float[Array, "*b h w c"], size: tuple[int, int]
) -> Float[Array, "*b height width c"]:
    """Bilinear with half-pixel centres, no antialiasing: TensorFlow 2's and PyTorch's default."""
    shape = (*images.shape[:-3], *size, images.shape[-1])
    return jax.image.resize(images, shape, "bilinear", antialias=False)


def area(
    images: Float[np.ndarray, "*b h w c"], size: tuple[int, int]
) -> Float[np.ndarray, "*b height width c"]:
    """Means over `size` equal cells, which may cut through pixels, or lie within one."""
    rows, columns = (_area_weights(*pair) for pair in zip(images.shape[-3:-1], size, strict=True))
    return np.einsum("...hwc,ah,bw->...abc", images, rows, columns, optimize=True)


def _area_weights(inputs: int, outputs: int) -> Float[np.ndarray, "outputs inputs"]:
    edges = np.linspace(0, inputs, outputs + 1)[:, None]
    lower, upper = edges[:-1], edges[1:]
    place = np.arange(inputs)
    covered = np.minimum(upper, place + 1) - np.maximum(lower, place)
    weights = np.maximum(covered, 0) / (upper - lower)
    return weights.astype(np.float32)
