"""The Fréchet distance of two sets of features: FID on Inception's, FVD on I3D's.

    |μ1 - μ2|² + tr(S1 + S2 - 2 (S1 S2)^½)

in float64 on the host. With any roots R, RᵀR = S, the last trace is the sum of the singular values
of R1 R2ᵀ. That needs no square root of a product, which amplifies rounding to its root, and no
covariance at all where there are fewer samples than features: their centred rows are a root.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phenaki.errors import UserError

Features = Float[np.ndarray, "n d"]
Weights = Float[np.ndarray, " n"]


class Moments(NamedTuple):
    """What is known of n features; `merge` is exact, so parts may come from anywhere.

    `count` is the sum of the weights, 1 each unless resampled.
    """

    count: float  # type: ignore[assignment]  # of what, no tuple is asked
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]  # sum of outer products around the mean


def moments(features: Features, weights: Weights | None = None) -> Moments:
    """Of a batch of features, each as often as its weight says."""
    x = np.asarray(features, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    count = float(w.sum())
    mean = w @ x / max(count, 1)
    x = x - mean
    return Moments(count, mean, (x * w[:, None]).T @ x)


def merge(a: Moments, b: Moments) -> Moments:
    """Of both sets together.

    Sums of squares would cancel where the mean is large; sums around the mean do not.
    """
    count = a.count + b.count
    if not count:
        return a
    step = b.mean - a.mean
    between = np.outer(step, step) * (a.count * b.count / count)
    return Moments(count, a.mean + step * (b.count / count), a.scatter + b.scatter + between)


class Gaussian(NamedTuple):
    """A mean and a root of the unbiased covariance."""

    mean: Float[np.ndarray, " d"]
    root: Float[np.ndarray, "r d"]


def gaussian(known: Moments) -> Gaussian:
    """UserError below two samples."""
    _check(known.count)
    values, vectors = np.linalg.eigh(known.scatter / (known.count - 1))
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # rounding makes some negative
    return Gaussian(known.mean, root)


def gaussian_of(features: Features, weights: Weights | None = None) -> Gaussian:
    """The same from features at hand, without their covariance where they are few."""
    if len(features) > features.shape[1]:
        return gaussian(moments(features, weights))
    x = np.asarray(features, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    _check(w.sum())
    mean = w @ x / w.sum()
    return Gaussian(mean, np.sqrt(w / (w.sum() - 1))[:, None] * (x - mean))


def _check(count):
    if count < 2:
        raise UserError(f"a Fréchet distance of {count:g} samples is undefined; give 2 or more.")


def distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Fréchet distance; 0 for equal sets, |μ1 - μ2|² for shifted ones."""
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"features of {a.mean.size} and {b.mean.size} numbers: both sets must come from one "
            "network."
        )
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    step = np.square(a.mean - b.mean).sum()
    return float(step + np.square(a.root).sum() + np.square(b.root).sum() - 2 * cross)
