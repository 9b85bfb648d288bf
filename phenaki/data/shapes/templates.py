"""Whether an object has one of the world's shapes and sizes, or some other one.

A drop, a circle with a corner and a triangle of half the area all lie nearest to the circle among
the shapes of a world. They are told from it by templates of more sizes than the world has: where
one of another shape, or of a size that no object of the world has, fits better, the object is none
of the world's.
"""

import functools

import numpy as np

from phenaki.data.shapes import render
from phenaki.data.shapes.world import SIZES, World

SCALES = np.arange(0.6, 1.31, 0.05)  # of `World.radius`
NEAR = 0.12  # a size within this fraction of one of the world's is that size
SUB = 4  # template positions per pixel and axis
HEIGHTS = (-SUB // 2, 0, SUB // 2)  # tips shift a centroid up: a template's offsets, in 1 / SUB px
HALO = 0.15  # coverage below it is noise
# Of clips that a tokenizer of moving shapes reconstructs, 1 frame in 1000 is further off than this.
MARGIN = 0.1


def distorted(world: World, cover: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Whether another template fits better [n] than all of `shape` in the world's sizes.

    Args:
      world: whose shapes are known.
      cover: coverage of n objects in 0..1, [n h w].
      shape: index of the shape that each is taken for, [n].
    """
    error = _errors(world, np.where(cover < HALO, 0, cover).astype(np.float32))
    known = np.any([abs(SCALES / SIZES[size] - 1) <= NEAR for size in world.sizes], axis=0)
    taken = (np.arange(len(world.shapes)) == shape[:, None])[..., None] & known
    best_known = np.where(taken, error, np.inf).min((1, 2))
    return np.where(taken, np.inf, error).min((1, 2)) < best_known - MARGIN


def _errors(world, cover):
    """Squared error [n shape scale] of every template, over the root of the object's area.

    Each is at its best height. Squares, because noise adds the same to all of them.
    """
    bank = _bank(world.radius, world.shapes)
    side = bank.shape[-1]
    padded = np.pad(cover, ((0, 0), (side, side), (side, side)))
    flat = bank.reshape(SUB, SUB, -1, side * side)
    own = np.square(flat).sum(-1)
    mass = np.maximum(cover.sum((1, 2)), 1e-6)
    y, x = np.arange(cover.shape[1]), np.arange(cover.shape[2])
    centre = np.stack([cover.sum(2) @ y, cover.sum(1) @ x], -1) / mass[:, None]
    at = np.rint(centre * SUB).astype(int)
    best = np.full((len(cover), own.shape[-1]), np.inf, np.float32)
    grid = np.arange(side) - side // 2 + side
    for row, height in np.ndindex(len(cover), len(HEIGHTS)):
        y, x = at[row, 0] + HEIGHTS[height], at[row, 1]
        crop = padded[row][np.ix_(grid + y // SUB, grid + x // SUB)].ravel()
        sub = y % SUB, x % SUB
        best[row] = np.minimum(best[row], own[sub] - 2 * flat[sub] @ crop)
    power = np.square(cover).sum((1, 2))[:, None]
    error = (best + power) / np.sqrt(np.maximum(power, 1e-6))
    return error.reshape(len(cover), *bank.shape[2:4])


@functools.lru_cache(maxsize=8)
def _bank(radius: float, shapes: tuple[str, ...]) -> np.ndarray:
    """Coverage [sub y, sub x, shape, scale, side, side] of objects centred at sub / SUB px."""
    reach = int(np.ceil(1.44 * radius * SCALES[-1])) + 2
    grid = np.arange(-reach, reach + 1, dtype=np.float32)
    sub = np.arange(SUB, dtype=np.float32) / SUB
    y = grid[:, None] - sub[:, None, None, None]
    x = grid - sub[:, None, None]
    return np.stack(
        [np.stack([render.alpha(s, radius * k, y, x) for k in SCALES], 2) for s in shapes], 2
    )
