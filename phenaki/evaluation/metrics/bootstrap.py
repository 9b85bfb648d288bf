"""How sure a score is: bootstrap intervals, and the score of real against real."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

Weights = Float[np.ndarray, " n"]
NORMAL = 1.959964  # of a 95 % interval


def interval(
    score: Callable[[Weights], float], value: float, count: int, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of `value`: ± 1.96 deviations of `score` over resampled clips.

    `score(weights)` weighs clip i by how often it was drawn. Percentiles would lie above the value
    itself for Fréchet distances: a resample has fewer distinct clips, which biases them upward.
    """
    random = np.random.default_rng((seed, count))
    weights = random.multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)
    half = NORMAL * float(np.std([score(w) for w in weights], ddof=1))
    return value - half, value + half


def mean_interval(
    values: Shaped[np.ndarray, " n"], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Of the mean of one value per clip."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    return interval(lambda w: float(w @ values / w.sum()), mean, len(values), resamples, seed)


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves of `count` clips, equally many; an odd one is left out."""
    order = np.random.default_rng((seed, count, 1)).permutation(count)
    half = count // 2
    return np.sort(order[:half]), np.sort(order[half : 2 * half])
