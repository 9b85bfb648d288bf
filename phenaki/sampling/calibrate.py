"""Calibrates an order of decoding on a model's own samples; not in the paper."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Int

Entropies = Callable[[Int[np.ndarray, "b s"]], Float[Array, "b s"]]


def calibrated_order(
    entropies: Entropies, samples: Int[np.ndarray, "b s"], mask_id: int, count: int
) -> list[int]:
    """The first `count` positions, each of which tells most about all that are still masked.

    Position k is the i that minimises the mean over `samples` of Σ_j H(c_j | those before, c_i),
    where `entropies` gives H of every position of partly masked tokens, in nats. Takes about
    `count` · s calls of `entropies` on all samples.
    """
    chosen: list[int] = []
    for _ in range(count):
        rest = [place for place in range(samples.shape[1]) if place not in chosen]
        left = []
        for place in rest:
            known = [*chosen, place]
            tokens = np.full_like(samples, mask_id)
            tokens[:, known] = samples[:, known]
            entropy = np.array(entropies(tokens))
            entropy[:, known] = 0
            left.append(entropy.sum(1).mean())
        chosen.append(rest[int(np.argmin(left))])
    return chosen
