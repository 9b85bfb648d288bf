"""The Fréchet distance of two sets of features: FID on Inception features, FVD on I3D features.

    |μ1 - μ2|² + tr(S1 + S2 - 2 (S1 S2)^½)

in float64 on the host. With any roots R, RᵀR = S, the last trace is the sum of the singular values
of R1 R2ᵀ. So no matrix square root of S1 S2 is taken, which would turn a rounding error into its
square root. Where there are fewer samples than features no covariance is computed either: the
centred samples are a root.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from phenaki.errors import UserError

FeatureRows = Float[np.ndarray, "n d"]
RowWeights = Float[np.ndarray, " n"]


class Moments(NamedTuple):
    """Count, mean and scatter of weighted features; `merge` of parts is exact.

    `count` is the sum of the weights, 1 each unless resampled.
    """

    count: float  # type: ignore[assignment]  # shadows tuple.count, which nothing calls
    mean: Float[np.ndarray, " d"]
    scatter: Float[np.ndarray, "d d"]  # sum of outer products around the mean


def moments(features: FeatureRows, weights: RowWeights | None = None) -> Moments:
    """The moments of a batch of features, each counted `weights` times (once by default).

    Raises:
        UserError: a feature is not finite.
    """
    x = np.asarray(features, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    count = float(w.sum())
    mean = w @ x / max(count, 1)
    _check_finite(mean)
    x = x - mean
    return Moments(count, mean, (x * w[:, None]).T @ x)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together.

    Sums of squares around the mean do not cancel where the mean is large; plain ones would.
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


def gaussian(total: Moments) -> Gaussian:
    """The Gaussian of these moments.

    Raises:
        UserError: there are fewer than two samples.
    """
    _check(total.count)
    values, vectors = np.linalg.eigh(total.scatter / (total.count - 1))
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # rounding makes some negative
    return Gaussian(total.mean, root)


def gaussian_of(features: FeatureRows, weights: RowWeights | None = None) -> Gaussian:
    """`gaussian` of features in memory, without their covariance where there are few rows.

    Raises:
        UserError: there are fewer than two samples, or a feature is not finite.
    """
    if len(features) > features.shape[1]:
        return gaussian(moments(features, weights))
    x = np.asarray(features, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    _check(w.sum())
    mean = w @ x / w.sum()
    _check_finite(mean)
    return Gaussian(mean, np.sqrt(w / (w.sum() - 1))[:, None] * (x - mean))


def _check(count):
    if count < 2:
        raise UserError(f"a Fréchet distance of {count:g} samples is undefined; give 2 or more.")


def _check_finite(mean):
    if not np.isfinite(mean).all():
        raise UserError("features are not finite; look for NaN in the clips.")


def distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Fréchet distance; 0 for equal sets, |μ1 - μ2|² for shifted ones.

    Raises:
        UserError: the features have different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"features of width {a.mean.size} and {b.mean.size}: both sets must come from one "
            "network."
        )
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    step = np.square(a.mean - b.mean).sum()
    return float(step + np.square(a.root).sum() + np.square(b.root).sum() - 2 * cross)
