"""Clips and images in one step: random keys, means and metric names by kind.

A batch is {kind: sub-batch}. Kinds are "video" and "image"; an image is a one-frame clip. Their
shapes differ: MaskGIT takes both as streams of one pass, other networks have a pass for each.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float, Key


def split_by_kind(key: Key[Array, ""], kinds: Iterable[str]) -> dict[str, Key[Array, ""]]:
    """A random key for each of `kinds`, whatever their order."""
    names = sorted(kinds)
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))


def weighted_mean(values: Mapping[str, Float[Array, ""]], rows: Mapping[str, int]) -> Any:
    """The mean over all samples, from each kind's mean and its number of samples."""
    return sum(rows[kind] * values[kind] for kind in values) / sum(rows.values())


def prefixed(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{"kind/name": value} of {kind: {name: value}}."""
    return {
        f"{kind}/{name}": value
        for kind, values in metrics.items()
        for name, value in values.items()
    }
