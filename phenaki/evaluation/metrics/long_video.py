"""Drift, seams and unexplained motion of videos that are sampled window by window.

Drift is the change of a window's statistics from the first window on. A seam is the distance from
the last frame of a window to the first new frame of the next; a step is the distance of two
neighbouring frames within a window, which a seam should not exceed by much.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phenaki.errors import UserError

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # two stacks [n h w 3] -> [n]


def drift(features: Float[np.ndarray, "b f d"], window: int) -> Float[np.ndarray, " k"]:
    """How far the mean of each window of `window` frames is from the first window's; 0 for itself.

    `features` of every frame: of a network, or mean colours. The squared distance of the means over
    the variance of frames within first windows: a video that only does what its first window does
    stays near 0. Frames after the last whole window are left out.

    Raises:
        UserError: there are fewer than two whole windows.
    """
    count = features.shape[1] // window
    if count < 2:
        raise UserError(
            f"drift over {features.shape[1]} frames: needs two windows of {window} or more."
        )
    x = np.asarray(features[:, : count * window], np.float64)
    x = x.reshape(len(x), count, window, -1)
    means = x.mean(2)
    within = np.square(x[:, 0] - means[:, :1]).sum(-1).mean()
    moved = np.square(means - means[:, :1]).sum(-1).mean(0)
    return moved / max(within, 1e-12)


def seam_and_steps(
    frames: Float[np.ndarray, "f h w 3"],
    before: Float[np.ndarray, "h w 3"] | None,
    distance: Distance,
) -> tuple[float | None, Float[np.ndarray, " s"]]:
    """(seam, steps) of a window's new `frames`; `before` is the last frame of the window before.

    The seam is None where there is no window before; the steps are f - 1 distances.
    """
    joined = frames if before is None else np.concatenate([before[None], frames])
    distances = distance(joined[:-1], joined[1:])
    return (None, distances) if before is None else (float(distances[0]), distances[1:])


def seam_ratio(video: Float[np.ndarray, "b f h w 3"], joints: Sequence[int]) -> float:
    """Mean seam over mean step, both by the mean absolute difference of pixels.

    `joints` are the first frames of windows. 1 where nothing shows, above it where windows do not
    fit together.

    Raises:
        UserError: a joint is not a frame after the first, or every frame is one.
    """
    if not joints or min(joints) < 1 or max(joints) >= video.shape[1]:
        raise UserError(
            f"joints={list(joints)}: must be frames 1 .. {video.shape[1] - 1} of the video."
        )
    is_seam = np.zeros(video.shape[1] - 1, bool)
    is_seam[np.array(joints) - 1] = True
    if is_seam.all():
        raise UserError("every frame is a joint; nothing is left to compare with.")
    change = np.abs(np.diff(np.asarray(video, np.float64), axis=1)).mean((0, 2, 3, 4))
    return float(change[is_seam].mean() / max(change[~is_seam].mean(), 1e-12))


@functools.partial(jax.jit, static_argnames=("block", "reach"))
def flow(
    before: Float[Array, "b h w 3"], after: Float[Array, "b h w 3"], block: int = 8, reach: int = 3
) -> Int[Array, "b i j 2"]:
    """Where each block of `after` came from: the (y, x) in whole pixels that fits `before` best.

    Block matching by squared differences over shifts up to `reach`; of equally good shifts the
    shortest, so blocks at rest and flat blocks do not move. Rows and columns after the last whole
    block are left out.
    """
    shifts = jnp.asarray(_shifts(reach))
    edges = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(before, edges, mode="edge")
    costs = jax.lax.map(
        lambda shift: _blocks(jnp.square(_moved(padded, shift, after.shape, reach) - after), block),
        shifts,
    )
    # A shift must be better by more than rounding to beat a shorter one.
    order = costs + 1e-7 * jnp.arange(len(shifts))[:, None, None, None]
    return shifts[order.argmin(0)]


def warp_error(
    video: Float[np.ndarray, "b f h w 3"], block: int = 8, reach: int = 3
) -> tuple[float, float]:
    """(mean squared error of frames warped to the next one by `flow`, and of frames unwarped).

    Their ratio is the fraction of the change that block motion does not explain: near 0 for objects
    that move, near 1 for flicker and for contents that appear from nothing.

    Raises:
        UserError: there is one frame only, or frames are smaller than a block.
    """
    if video.shape[1] < 2:
        raise UserError(f"flow of {video.shape[1]} frame: give 2 or more.")
    if min(video.shape[2:4]) < block:
        raise UserError(f"flow of {video.shape[2]}x{video.shape[3]} px: blocks are {block} px.")
    warped, unwarped = [], []
    for frame in range(video.shape[1] - 1):
        errors = _errors(video[:, frame], video[:, frame + 1], block=block, reach=reach)
        warped.append(float(errors[0]))
        unwarped.append(float(errors[1]))
    return float(np.mean(warped)), float(np.mean(unwarped))


@functools.partial(jax.jit, static_argnames=("block", "reach"))
def _errors(before, after, block, reach):
    vectors = flow(before, after, block, reach)
    height, width = (side // block * block for side in after.shape[1:3])
    by_pixel = jnp.repeat(jnp.repeat(vectors, block, 1), block, 2)
    y = jnp.arange(height)[:, None] + by_pixel[..., 0]
    x = jnp.arange(width) + by_pixel[..., 1]
    y, x = jnp.clip(y, 0, after.shape[1] - 1), jnp.clip(x, 0, after.shape[2] - 1)
    warped = before[jnp.arange(len(before))[:, None, None], y, x]
    target, plain = after[:, :height, :width], before[:, :height, :width]
    return jnp.square(warped - target).mean(), jnp.square(plain - target).mean()


@functools.cache
def _shifts(reach: int) -> Int[np.ndarray, "s 2"]:
    """All (y, x) up to `reach` each way, the shortest first."""
    side = np.arange(-reach, reach + 1)
    shifts = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    return shifts[np.argsort(np.square(shifts).sum(-1), kind="stable")]


def _moved(padded, shift, shape, reach):
    start = (0, reach + shift[0], reach + shift[1], 0)
    return jax.lax.dynamic_slice(padded, start, shape)


def _blocks(x, block):
    """Means over blocks and channels [b i j]."""
    rows, columns = (side // block for side in x.shape[1:3])
    x = x[:, : rows * block, : columns * block].mean(-1)
    return x.reshape(len(x), rows, block, columns, block).mean((2, 4))
