"""How close a reconstruction is to its clip, frame by frame and over time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phenaki.errors import UserError

WINDOW, SIGMA = 11, 1.5  # pixels, of SSIM's Gaussian
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's constants for pixels in [0, 1]
BEST_PSNR = 100.0  # dB, of equal frames, so that means stay finite

Clips = Float[np.ndarray, "b f h w 3"]


def psnr(real: Clips, fake: Clips) -> float:
    """Peak signal-to-noise ratio in dB, of the mean squared error of all clips together."""
    return float(-10 * np.log10(np.mean(np.square(fake - real))))


def flicker(real: Clips, fake: Clips) -> float:
    """Share of the squared error that is new in every frame: 0 if errors stand still, 1 if fresh.

    E|e_t+1 - e_t|² / (E|e_t|² + E|e_t+1|²) of the errors e of neighbouring frames; between 1 and 2
    errors alternate. Unlike the PSNR it does not reward blurring.
    """
    error = fake - real
    before, after = error[:, :-1], error[:, 1:]
    return float(
        np.mean(np.square(after - before)) / (np.mean(np.square(before) + np.square(after)))
    )


@jax.jit
def frame_psnr(real, fake):
    """PSNR [b f] in dB of each frame of clips [b f h w 3]; papers print the mean of these."""
    error = jnp.square(fake - real).mean((2, 3, 4))
    return jnp.minimum(-10 * jnp.log10(jnp.maximum(error, 1e-30)), BEST_PSNR)


def frame_ssim(real: Clips, fake: Clips) -> Float[Array, "b f"]:
    """Structural similarity of each frame, the mean over channels and windows inside the frame.

    Gaussian windows of 11 px with population statistics, as Wang et al. and scikit-image's
    `gaussian_weights`. Raises UserError for frames below 11 px.
    """
    if min(real.shape[2:4]) < WINDOW:
        height, width = real.shape[2:4]
        raise UserError(f"SSIM of frames of {height}x{width}: needs {WINDOW} px or more a side.")
    return _frame_ssim(real, fake)


@jax.jit
def _frame_ssim(real, fake):
    x, y = _window_means(real), _window_means(fake)
    xx = _window_means(real * real) - x * x
    yy = _window_means(fake * fake) - y * y
    xy = _window_means(real * fake) - x * y
    light = (2 * x * y + LUMINANCE) / (x * x + y * y + LUMINANCE)
    return (light * (2 * xy + CONTRAST) / (xx + yy + CONTRAST)).mean((2, 3, 4))


def _window_means(x):
    """Gaussian means over all windows that lie inside the frame."""
    for axis in (2, 3):
        x = jnp.tensordot(x, _gaussian(x.shape[axis]), (axis, 1), precision="highest")
        x = jnp.moveaxis(x, -1, axis)
    return x


@functools.cache
def _gaussian(size: int) -> Float[np.ndarray, "o i"]:
    """The Gaussian window at every place of a line of `size` pixels, as a banded matrix."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    rows = np.zeros((size - WINDOW + 1, size))
    for row in range(len(rows)):
        rows[row, row : row + WINDOW] = window / window.sum()
    return rows.astype(np.float32)
