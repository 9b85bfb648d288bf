"""Quantizers: the factorised, l2-normalised codebook of §2.1 (equation 1), FSQ and LFQ.

Each has the fields `codebook`, the number of codes, and `code_dim`, the values per code, and the
methods `__call__` and `lookup`. A learned codebook is the parameter `embedding`.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phenaki.errors import UserError

ENTROPY_WEIGHT = 0.1  # of LFQ's entropy penalty, its authors' choice


class Quantized(NamedTuple):
    """A quantizer's result; losses are means over elements (docs/paper.md#codebook-losses)."""

    vectors: Float[Array, "... e"]  # the codes, with a straight-through gradient to the inputs
    tokens: Int[Array, "..."]  # their indices
    inputs: Float[Array, "... e"]  # the normalised inputs
    codebook_loss: Float[Array, ""]  # ||sg(z) - e||²
    commitment_loss: Float[Array, ""]  # ||z - sg(e)||², to be weighted by β


def normalize(x: Array) -> Array:
    """x / ||x|| over the last axis in float32; value and gradient are finite at 0."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def nearest(z: Float[Array, "n e"], table: Float[Array, "k e"]) -> Int[Array, " n"]:
    """Index of the nearest code of `table` for each `z`; both are unit vectors in float32."""
    # Between unit vectors the nearest has the largest inner product. bfloat16 would pick others.
    return jnp.argmax(z @ table.T, axis=-1).astype(jnp.int32)


class VectorQuantizer(nn.Module):
    """Replaces a vector by the nearest of `codebook` learned unit vectors (§2.1, equation 1)."""

    codebook: int
    code_dim: int

    def setup(self):
        self.embedding = self.param(
            "embedding", nn.initializers.normal(1.0), (self.codebook, self.code_dim), jnp.float32
        )

    def __call__(self, z: Float[Array, "... e"]) -> Quantized:
        z = normalize(z)
        table = normalize(self.embedding)
        tokens = nearest(*jax.lax.stop_gradient((z.reshape(-1, self.code_dim), table)))
        tokens = tokens.reshape(z.shape[:-1])
        e = jnp.take(table, tokens, axis=0)
        codebook_loss = jnp.mean(jnp.square(jax.lax.stop_gradient(z) - e))
        commitment_loss = jnp.mean(jnp.square(z - jax.lax.stop_gradient(e)))
        return Quantized(
            z + jax.lax.stop_gradient(e - z), tokens, z, codebook_loss, commitment_loss
        )

    def lookup(self, tokens: Int[Array, "..."]) -> Float[Array, "... e"]:
        """Codes of `tokens`, unit vectors; equal to `__call__`'s up to rounding of its sum."""
        return jnp.take(normalize(self.embedding), tokens, axis=0)


def levels(codebook: int, code_dim: int) -> tuple[int, ...]:
    """Levels per value of FSQ: powers of two, nearly equal, whose product is `codebook`.

    8192 codes of 5 values have 8 8 8 4 4 levels.

    Raises:
        UserError: `codebook` is no power of two, or has fewer bits than `code_dim`.
    """
    bits = codebook.bit_length() - 1
    if codebook != 2**bits or not 1 <= code_dim <= bits:
        nearest_power = 2 ** max(round(math.log2(max(codebook, 2))), 1)
        raise UserError(
            f"config.tokenizer.codebook={codebook} and code_dim={code_dim}: without a codebook the "
            f"number of codes must be a power of two, such as {nearest_power}, and code_dim at "
            f"most its bits, {int(math.log2(nearest_power))}."
        )
    return tuple(2 ** ((bits + code_dim - 1 - axis) // code_dim) for axis in range(code_dim))


class FiniteScalarQuantizer(nn.Module):
    """FSQ (arXiv 2309.15505): bounds every value and rounds it to one of a few levels.

    Nothing is learned and nothing can collapse, so both losses are 0.
    """

    codebook: int
    code_dim: int

    def __call__(self, z: Float[Array, "... e"]) -> Quantized:
        count = np.array(levels(self.codebook, self.code_dim), np.float32)
        # Shifted by half a step: an even number of levels is then symmetric around 0.
        z = jnp.tanh(z.astype(jnp.float32)) * (count - 1) / 2 * (1 + 1e-3) - 0.5
        rounded = jnp.round(z)
        tokens = _join(rounded + count / 2, count)
        step = 2 / count
        vectors = (z + jax.lax.stop_gradient(rounded - z)) * step
        zero = jnp.zeros(())
        return Quantized(vectors, tokens, z * step, zero, zero)

    def lookup(self, tokens: Int[Array, "..."]) -> Float[Array, "... e"]:
        """Codes of `tokens`, values in [-1, 1)."""
        count = np.array(levels(self.codebook, self.code_dim), np.float32)
        return (_split(tokens, count) - count / 2) * (2 / count)


class LookupFreeQuantizer(nn.Module):
    """LFQ (arXiv 2310.05737): keeps the sign of every value; `code_dim` is the number of bits.

    An entropy penalty, E[H(p(code | z))] - H(E[p(code | z)]), takes the place of the codebook
    loss. It is low where each input is close to one code, and all codes are in use.
    """

    codebook: int
    code_dim: int

    def __call__(self, z: Float[Array, "... e"]) -> Quantized:
        count = self._levels()
        z = z.astype(jnp.float32)
        vectors = jnp.where(z > 0, 1.0, -1.0)
        tokens = _join((vectors + 1) / 2, count)
        commitment_loss = jnp.mean(jnp.square(z - vectors))
        straight = z + jax.lax.stop_gradient(vectors - z)
        return Quantized(straight, tokens, z, ENTROPY_WEIGHT * self._penalty(z), commitment_loss)

    def _penalty(self, z):
        table = self.lookup(jnp.arange(self.codebook))
        log_p = jax.nn.log_softmax(2 * z.reshape(-1, self.code_dim) @ table.T)
        p = jnp.exp(log_p)
        mean = p.mean(0)
        return -(p * log_p).sum(-1).mean() + (mean * jnp.log(mean + 1e-9)).sum()

    def lookup(self, tokens: Int[Array, "..."]) -> Float[Array, "... e"]:
        """Codes of `tokens`, values -1 and 1."""
        return 2 * _split(tokens, self._levels()) - 1

    def _levels(self):
        if self.codebook != 2**self.code_dim:
            raise UserError(
                f"config.tokenizer.codebook={self.codebook} must be 2 to the power of code_dim="
                f"{self.code_dim} with config.tokenizer.quantizer=lfq; nearest is "
                f"{2**self.code_dim}."
            )
        return np.full(self.code_dim, 2.0, np.float32)


def _join(digits, count):
    """One integer per vector of digits, the first digit the most significant."""
    place = np.cumprod(np.append(1, count[:0:-1]))[::-1].astype(np.int32)
    return (digits.astype(jnp.int32) * place).sum(-1)


def _split(tokens, count):
    place = np.cumprod(np.append(1, count[:0:-1]))[::-1].astype(np.int32)
    return ((tokens[..., None] // place) % count.astype(np.int32)).astype(jnp.float32)


QUANTIZERS = {"vq": VectorQuantizer, "fsq": FiniteScalarQuantizer, "lfq": LookupFreeQuantizer}
