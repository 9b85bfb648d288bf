"""Dropout whose random numbers are cheap on TPUs and the same on every mesh."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

Words = UInt32[Array, "..."]


class DropoutMask(NamedTuple):
    """Which elements of a [... r c] array are dropped: one random word per row and per column."""

    rows: Words  # [... r 1]
    columns: Words  # [... 1 c]
    rate: float

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Zeroes the dropped elements and scales the others by 1 / (1 - rate)."""
        keep = kept(self.rows, self.columns, self.rate)
        return jnp.where(keep, x / (1 - self.rate), 0)


class Dropout(nn.Module):
    """Zeroes a fraction `rate` of the elements and scales the others by 1 / (1 - rate).

    Draws from the RNG stream "dropout".
    """

    rate: float
    deterministic: bool | None = None

    def __call__(
        self, x: Float[Array, "..."], deterministic: bool | None = None
    ) -> Float[Array, "..."]:
        if nn.merge_param("deterministic", self.deterministic, deterministic) or not self.rate:
            return x
        return self.mask(x.shape)(x)

    def mask(self, shape: tuple[int, ...]) -> DropoutMask:
        """A mask for arrays of `shape`, whatever `deterministic` says."""
        for_rows, for_columns = jax.random.split(self.make_rng("dropout"))
        rows = jax.random.bits(for_rows, (*shape[:-1], 1))
        columns = jax.random.bits(for_columns, (*shape[:-2], 1, shape[-1]))
        return DropoutMask(rows, columns, self.rate)


def kept(rows: Words, columns: Words, rate: float) -> Bool[Array, "..."]:
    """Which elements stay: each with probability 1 - `rate`, by its row's and column's word."""
    # JAX's Threefry takes a hundred integer operations per element. Over attention scores, on a
    # TPU, that is several times the work of the matrix products around them. JAX's faster "rbg"
    # generator gives different numbers on different meshes.
    # So only the words come from JAX. An element mixes its two words by a multiply-and-shift hash,
    # in which every output bit depends on every input bit.
    x = rows ^ columns
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    # 24 bits fit a signed integer: Pallas on TPUs does not compare unsigned ones.
    return (x >> 8).astype(jnp.int32) >= round(rate * 2**24)
