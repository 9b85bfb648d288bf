"""Bootstrap intervals of scores, and the halves of real clips for noise floors."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

ClipWeights = Float[np.ndarray, " n"]  # how often each clip is resampled
NORMAL = 1.959964  # of a 95 % interval


def interval(
    score: Callable[[ClipWeights], float], value: float, count: int, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of `value`: ± 1.96 standard deviations of `score` over resampled clips.

    `score(weights)` weights clip i by how often it was resampled. Percentiles would lie above
    `value` itself for Fréchet distances: fewer distinct clips bias those upward.
    """
    random = np.random.default_rng((seed, count))
    weights = random.multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)
    half = NORMAL * float(np.std([score(w) for w in weights], ddof=1))
    return value - half, value + half


def mean_interval(
    values: Shaped[np.ndarray, " n"], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of one value per clip."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    return interval(lambda w: float(w @ values / w.sum()), mean, len(values), resamples, seed)


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of two disjoint random halves of `count` clips; an odd clip is left out."""
    order = np.random.default_rng((seed, count, 1)).permutation(count)
    half = count // 2
    return np.sort(order[:half]), np.sort(order[half : 2 * half])
