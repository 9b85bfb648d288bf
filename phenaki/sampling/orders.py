"""Orders in which tokens are decoded, which do not depend on what is sampled; not in the paper.

The paper keeps the most confident tokens. These are the easy ones, which decide little: a fixed
order can place the first tokens where they tell most about the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from phenaki.errors import UserError

Grid = tuple[int, int, int]  # t, m, n: latent frames, rows, columns
CONFIDENCE = "confidence"  # the paper's: by what was sampled, no order of its own
CALIBRATED = "calibrated"  # of the model's own, `phenaki.sampling.calibrate`


def _spread(length: int, base: int) -> Float[np.ndarray, " length"]:
    """The numbers 1 .. `length` with their digits in `base` reversed behind the point."""
    number, scale, result = np.arange(1, length + 1), 1.0, np.zeros(length)
    while number.any():
        scale /= base
        result += scale * (number % base)
        number //= base
    return result


def halton(grid: Grid) -> Int[np.ndarray, " s"]:
    """Positions in the order of a Halton sequence: each next one far from those before."""
    # Some cells come late in the sequence: those that it missed follow in raster order.
    points = [_spread(8 * int(np.prod(grid)), base) for base in (5, 2, 3)]
    cells = np.ravel_multi_index(
        tuple((p * n).astype(int) for p, n in zip(points, grid, strict=True)), grid
    )
    order = np.concatenate([cells, np.arange(np.prod(grid))])
    return order[np.sort(np.unique(order, return_index=True)[1])]


def _frame_by_frame(frames: Int[np.ndarray, " t"], grid: Grid) -> Int[np.ndarray, " s"]:
    inside = halton((1, *grid[1:]))
    return (frames[:, None] * inside.size + inside).ravel()


def frames(grid: Grid) -> Int[np.ndarray, " s"]:
    """Latent frame after latent frame, within one as `halton`: continues what is given."""
    return _frame_by_frame(np.arange(grid[0]), grid)


def middle(grid: Grid) -> Int[np.ndarray, " s"]:
    """As `frames`, from the middle of the clip outwards: it says most about both ends."""
    distance = np.abs(np.arange(grid[0]) - (grid[0] - 1) / 2)
    return _frame_by_frame(np.argsort(distance, kind="stable"), grid)


FIXED: Mapping[str, Callable[[Grid], Int[np.ndarray, " s"]]] = {
    "frames": frames,
    "middle": middle,
    "halton": halton,
}
NAMES = (CONFIDENCE, *FIXED, CALIBRATED)


def of_sampler(sample: Any, grid: Grid) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"]]:
    """The ranks of `config.sample` in whole clips, and where first frames are given.

    Raises:
        UserError: one of the orders is not fixed.
    """
    order = sample.get("order", CONFIDENCE)
    names = order, (sample.get("continued") or {}).get("order") or order
    first, later = (ranks(name, grid, tuple(sample.get("calibrated", ()))) for name in names)
    if first is None or later is None:
        raise UserError(
            "config.mask.ordered: the order of config.sample, and of its continued, must be fixed, "
            "not confidence; nearest is middle."
        )
    return first, later


def check(name: str, calibrated: Sequence[Any]) -> None:
    """Raises `UserError` if `name` is the order of `calibrated` positions, and there are none."""
    if name == CALIBRATED and not len(calibrated):
        raise UserError(
            "order='calibrated': this model has none in config.sample.calibrated; nearest is "
            "order='middle', and experiments/calibrate_order.py makes one."
        )


def ranks(name: str, grid: Grid, calibrated: tuple[int, ...] = ()) -> Int[np.ndarray, " s"] | None:
    """The place of every position in the order `name`, 0 for the first; None for `CONFIDENCE`.

    `calibrated` are the first positions of that order; the others follow by `middle`.

    Raises:
        UserError: the model has no calibrated order.
    """
    if name == CONFIDENCE:
        return None
    check(name, calibrated)
    if name == CALIBRATED:
        rest = middle(grid)
        if len({*calibrated}) < len(calibrated) or not {*calibrated} <= {*rest.tolist()}:
            raise UserError(
                "config.sample.calibrated: must be different positions of the clip's "
                f"{rest.size} tokens, 0 to {rest.size - 1}; experiments/calibrate_order.py makes "
                "them."
            )
        order = np.concatenate([calibrated, rest[~np.isin(rest, calibrated)]])
    else:
        order = FIXED[name](grid)
    rank = np.empty(order.size, np.int32)
    rank[order] = np.arange(order.size)
    return rank
