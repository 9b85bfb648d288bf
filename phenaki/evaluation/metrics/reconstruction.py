"""Reconstruction metrics: PSNR, SSIM and flicker of clips against their originals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phenaki.errors import UserError

WINDOW, SIGMA = 11, 1.5  # pixels, of SSIM's Gaussian
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's constants for pixels in [0, 1]
MAX_PSNR = 100.0  # dB, of equal frames, so that means stay finite

VideoArray = Float[np.ndarray, "b f h w 3"]


def psnr(real: VideoArray, fake: VideoArray) -> float:
    """Peak signal-to-noise ratio in dB of the mean squared error over all clips.

    Raises:
        UserError: as all measures here, for values that are no floating point, or other shapes.
    """
    _check(real, fake)
    error = np.mean(np.square(fake - real), dtype=np.float64)
    return min(float(-10 * np.log10(np.maximum(error, 1e-30))), MAX_PSNR)


def flicker(real: VideoArray, fake: VideoArray) -> float:
    """Fraction of the squared error that changes from frame to frame: 0 constant, 1 independent.

    E|e_t+1 - e_t|² / (E|e_t|² + E|e_t+1|²) of the errors e of neighbouring frames; above 1, up to
    2, errors alternate. Unlike the PSNR it does not reward blurring.
    """
    _check(real, fake)
    error = fake - real
    before, after = error[:, :-1], error[:, 1:]
    return float(
        np.mean(np.square(after - before)) / (np.mean(np.square(before) + np.square(after)))
    )


def frame_psnr(real: VideoArray, fake: VideoArray) -> Float[Array, "b f"]:
    """PSNR in dB of each frame; papers print their mean."""
    _check(real, fake)
    return _frame_psnr(real, fake)


@jax.jit
def _frame_psnr(real, fake):
    error = jnp.square(fake - real).mean((2, 3, 4))
    return jnp.minimum(-10 * jnp.log10(jnp.maximum(error, 1e-30)), MAX_PSNR)


def frame_ssim(real: VideoArray, fake: VideoArray) -> Float[Array, "b f"]:
    """Structural similarity of each frame: the mean over channels and windows inside the frame.

    Gaussian windows of 11 px with population statistics, as Wang et al. and scikit-image's
    `gaussian_weights`.

    Raises:
        UserError: frames are smaller than 11 px.
    """
    _check(real, fake)
    if min(real.shape[2:4]) < WINDOW:
        height, width = real.shape[2:4]
        raise UserError(f"SSIM of frames of {height}x{width}: needs {WINDOW} px or more a side.")
    return _frame_ssim(real, fake)


def _check(real, fake):
    """Differences of unsigned bytes wrap around, and other shapes may broadcast."""
    for video in (real, fake):
        if not jnp.issubdtype(video.dtype, jnp.floating):
            raise UserError(f"clips are {video.dtype}; they must be floating point in [0, 1].")
    if real.shape != fake.shape:
        raise UserError(f"clips are {real.shape} and {fake.shape}; they must be of one shape.")


@jax.jit
def _frame_ssim(real, fake):
    x, y = _window_means(real), _window_means(fake)
    xx = _window_means(real * real) - x * x
    yy = _window_means(fake * fake) - y * y
    xy = _window_means(real * fake) - x * y
    light = (2 * x * y + LUMINANCE) / (x * x + y * y + LUMINANCE)
    return (light * (2 * xy + CONTRAST) / (xx + yy + CONTRAST)).mean((2, 3, 4))


def _window_means(x):
    """Gaussian means over all windows that lie inside the frame [b f h-10 w-10 c]."""
    for axis in (2, 3):
        x = jnp.tensordot(x, _gaussian(x.shape[axis]), (axis, 1), precision="highest")
        x = jnp.moveaxis(x, -1, axis)
    return x


@functools.cache
def _gaussian(size: int) -> Float[np.ndarray, "o i"]:
    """The Gaussian window at every position of a line of `size` pixels, as a banded matrix."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    rows = np.zeros((size - WINDOW + 1, size))
    for row in range(len(rows)):
        rows[row, row : row + WINDOW] = window / window.sum()
    return rows.astype(np.float32)
