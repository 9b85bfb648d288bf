"""Which codes a training sample hides (§2.2), and how many of them a sampler still hides."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

# γ(r, length): the share that stays masked at r in 0..1 of `length` codes; numpy or jax arrays.
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
    # From 1 - 1/length at r = 0: concave like the cosine, and steeper the longer the clip.
    xp = r.__array_namespace__()
    return 1 - xp.exp2(xp.log2(xp.maximum(xp.asarray(length, dtype=r.dtype), 1)) * (r - 1))


# MaskGIT's names: drawn uniformly, r gives a uniform share; as a sampler that is linear.
SCHEDULES: dict[str, Schedule] = {
    "cosine": _clipped(_cosine),
    "uniform": _clipped(_power(1)),
    "linear": _clipped(_power(1)),
    "square": _clipped(_power(2)),
    "cubic": _clipped(_power(3)),
    "exp": _clipped(_exp),
}
COSINE = SCHEDULES["cosine"]


def sample_mask(
    key: Array,
    shape: tuple[int, int],
    schedule: Schedule = COSINE,
    known: Bool[Array, "b s"] | None = None,
) -> Bool[Array, "b s"]:
    """True at exactly ⌈γM⌉ uniformly random positions of a row; γ(r) with r ~ U[0, 1) per row.

    M is the length, or the number of positions that `known` does not exclude.
    """
    rows, length = shape
    key_ratio, key_order = jax.random.split(key)
    free = length if known is None else length - known.sum(-1)
    ratio = schedule(jax.random.uniform(key_ratio, (rows,)), free)
    # §2.2 rounds up, so that at least one code is masked; MaskGIT's sampler rounds down.
    count = jnp.clip(jnp.ceil(ratio * free), 1, free).astype(jnp.int32)
    order = jax.random.uniform(key_order, shape)
    if known is not None:
        order = jnp.where(known, jnp.inf, order)
    rank = jnp.argsort(jnp.argsort(order, axis=-1), axis=-1)
    return rank < count[:, None]


def sample_prefix(
    key: Array, rows: int, grid: tuple[int, int, int], share: float
) -> Bool[Array, "b s"]:
    """True at the codes of the first 1 .. t - 1 latent frames, in about `share` of the rows.

    Such rows go on from given frames. `grid` is (t, m, n); with t = 1 there is nothing to go on to.
    """
    key_share, key_frames = jax.random.split(key)
    time, per_frame = grid[0], grid[1] * grid[2]
    frames = jax.random.randint(key_frames, (rows,), 1, max(time, 2))
    frames = jnp.where(jax.random.uniform(key_share, (rows,)) < share, frames, 0)
    frames = jnp.minimum(frames, time - 1)
    return jnp.arange(time * per_frame) < (frames * per_frame)[:, None]


def apply_mask(
    tokens: Int[Array, "b s"], mask: Bool[Array, "b s"], mask_id: int
) -> Int[Array, "b s"]:
    """`codes` with `mask_id` where `mask` is True."""
    return jnp.where(mask, mask_id, tokens)


def keep_text(key: Array, rows: int, drop: float) -> Bool[Array, " b"]:
    """False for the share `drop` of samples that train without their text (guidance, §2.2)."""
    return jax.random.uniform(key, (rows,)) >= drop


def decile(mask: Bool[Array, "b s"]) -> Int[Array, " b"]:
    """0 .. 9: in which tenth a row's masked share lies; a whole row belongs to the last."""
    return jnp.minimum(mask.sum(-1) * 10 // mask.shape[1], 9)
