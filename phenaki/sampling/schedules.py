"""Mask schedules and mask sampling for training and decoding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

# γ(r, length): the fraction of `length` tokens that is masked at r in 0..1. Works on NumPy arrays
# (the sampler's counts) and JAX arrays (training masks) alike.
Schedule = Callable[[Any, Any], Any]


def _clipped(gamma: Schedule) -> Schedule:
    def schedule(r, length):
        return r.__array_namespace__().clip(gamma(r, length), 1e-6, 1.0)

    return schedule


def _cosine(r, length):
    del length
    xp = r.__array_namespace__()
    return xp.cos(xp.pi / 2 * r)


def _power(exponent: int) -> Schedule:
    return lambda r, length: 1 - r**exponent


def _exp(r, length):
    # From 1 - 1/length at r = 0 down to 0 at r = 1.
    # Concave like the cosine, and steeper the longer the clip.
    xp = r.__array_namespace__()
    return 1 - xp.exp2(xp.log2(xp.maximum(xp.asarray(length, dtype=r.dtype), 1)) * (r - 1))


def _late(r, length):
    # One token in every step of a sampler, and all others in the last one.
    del length
    return (r < 1) * 1.0


# MaskGIT's names. "uniform" and "linear" are one function: with r ~ U[0, 1) the masked fraction of
# a training sample is uniform, and over the steps of a sampler it falls linearly.
SCHEDULES: dict[str, Schedule] = {
    "cosine": _clipped(_cosine),
    "uniform": _clipped(_power(1)),
    "linear": _clipped(_power(1)),
    "square": _clipped(_power(2)),
    "cubic": _clipped(_power(3)),
    "exp": _clipped(_exp),
}
# Those that a sampler may follow.
SAMPLER_SCHEDULES = SCHEDULES | {"late": _clipped(_late)}
COSINE = SCHEDULES["cosine"]


def sample_mask(
    key: Array,
    shape: tuple[int, int],
    schedule: Schedule = COSINE,
    known: Bool[Array, "b s"] | None = None,
    ranks: Int[Array, "b s"] | None = None,
) -> Bool[Array, "b s"]:
    """The training mask (§2.2): ⌈γ(r)·M⌉ uniformly random positions per row, r ~ U[0, 1) per row.

    M is the sequence length, or the number of positions that `known` leaves free; known positions
    are never masked. A row with M > 0 has at least one masked position. Rows with `ranks`, which
    the others have at -1, mask those that come last instead of random ones: what a sampler of that
    order meets.
    """
    rows, length = shape
    key_ratio, key_order = jax.random.split(key)
    free = length if known is None else length - known.sum(-1)
    ratio = schedule(jax.random.uniform(key_ratio, (rows,)), free)
    # §2.2 rounds up, so that at least one token is masked; MaskGIT's sampler rounds down.
    count = jnp.clip(jnp.ceil(ratio * free), 1, free).astype(jnp.int32)
    # A position is masked if its random number is among the `count` lowest of its row.
    # Known positions come last in that order.
    order = jax.random.uniform(key_order, shape)
    if ranks is not None:
        order = jnp.where(ranks < 0, order, -ranks)
    if known is not None:
        order = jnp.where(known, jnp.inf, order)
    rank = jnp.argsort(jnp.argsort(order, axis=-1), axis=-1)
    return rank < count[:, None]


def sample_prefix(
    key: Array, shape: tuple[int, int], per_frame: int, fraction: float
) -> Bool[Array, "b s"]:
    """True at the tokens of the first 1 .. t - 1 latent frames, in about `fraction` of the rows.

    Such rows train the continuation of given frames. A latent frame has `per_frame` tokens; with
    t = 1 no frame is left to predict, and no row has a prefix.
    """
    key_rows, key_frames = jax.random.split(key)
    rows, length = shape
    time = length // per_frame
    frames = jax.random.randint(key_frames, (rows,), 1, max(time, 2))
    frames = jnp.where(jax.random.uniform(key_rows, (rows,)) < fraction, frames, 0)
    frames = jnp.minimum(frames, time - 1)
    return jnp.arange(length) < (frames * per_frame)[:, None]


def sample_ranks(
    key: Array,
    known: Bool[Array, "b s"],
    orders: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]],
    fraction: float,
) -> Int[Array, "b s"]:
    """The place of every position in an order, in about `fraction` of the rows; -1 in the others.

    `orders` are the ranks, in a clip of n >= s tokens, of rows without `known` positions, and of
    rows with them, as later windows of a story.
    """
    (rows, length), (first, later) = known.shape, orders
    order = jnp.where(known.any(1, keepdims=True), later[:length], first[:length])
    follows = jax.random.uniform(key, (rows, 1)) < fraction
    return jnp.where(follows, order, -1).astype(jnp.int32)


def apply_mask(
    tokens: Int[Array, "b s"], mask: Bool[Array, "b s"], mask_id: int
) -> Int[Array, "b s"]:
    """`tokens` with `mask_id` where `mask` is True."""
    return jnp.where(mask, mask_id, tokens)


def keep_text(key: Array, rows: int, drop: float) -> Bool[Array, " b"]:
    """False for about the fraction `drop` of rows, which train without text (guidance, §2.2)."""
    return jax.random.uniform(key, (rows,)) >= drop


def decile(mask: Bool[Array, "b s"]) -> Int[Array, " b"]:
    """The tenth, 0 .. 9, in which a row's masked fraction lies; a fully masked row is in the last.

    Training logs its losses by decile.
    """
    return jnp.minimum(mask.sum(-1) * 10 // mask.shape[1], 9)
