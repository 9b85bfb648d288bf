"""Dropout whose random numbers cost a TPU less than the products around them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt32

Words = UInt32[Array, "..."]


class Dropout(nn.Module):
    """Zeroes a share `rate` of the elements and scales the others by 1 / (1 - rate)."""

    rate: float
    deterministic: bool | None = None

    def __call__(
        self, x: Float[Array, "..."], deterministic: bool | None = None
    ) -> Float[Array, "..."]:
        if nn.merge_param("deterministic", self.deterministic, deterministic) or not self.rate:
            return x
        keep = kept(*self.words(x.shape), self.rate)
        return jnp.where(keep, x / (1 - self.rate), 0)

    def words(self, shape: tuple[int, ...]) -> tuple[Words, Words]:
        """A random word for each row and each column of the last two axes of `shape`."""
        for_rows, for_columns = jax.random.split(self.make_rng("dropout"))
        rows = jax.random.bits(for_rows, (*shape[:-1], 1))
        return rows, jax.random.bits(for_columns, (*shape[:-2], 1, shape[-1]))


def kept(rows: Words, columns: Words, rate: float) -> Bool[Array, "..."]:
    """Which elements stay: each with probability 1 - `rate`, by its row's and column's word.

    JAX's own bits take a hundred integer operations each. Over the scores of attention, on a TPU,
    that is several times the work of the products; its faster generator makes other numbers on
    every mesh. Here only the words are JAX's; an element mixes its two by a multiply-and-shift
    hash, of which every bit depends on every bit.
    """
    x = rows ^ columns
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    # As signed numbers, which kernels can compare.
    return (x >> 8).astype(jnp.int32) >= round(rate * 2**24)
