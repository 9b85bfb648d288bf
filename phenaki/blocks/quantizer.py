"""Factorised, l2-normalised vector quantization (§2.1, equation 1)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Quantized(NamedTuple):
    """What the quantizer returns; losses are means over elements (PAPER_FACTS A10)."""

    vectors: Float[Array, "... e"]  # unit code vectors, gradient passed straight to the input
    codes: Int[Array, "..."]
    inputs: Float[Array, "... e"]  # the normalised inputs
    codebook_loss: Float[Array, ""]  # ||sg(z) - e||²
    commitment_loss: Float[Array, ""]  # ||z - sg(e)||², to be weighted by β


def normalize(x: Array) -> Array:
    """x / ||x|| in float32, finite with a finite gradient at 0."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


class VectorQuantizer(nn.Module):
    """Nearest of `codebook` unit vectors of `code_dim` values."""

    codebook: int
    code_dim: int

    def setup(self):
        self.embedding = self.param(
            "embedding", nn.initializers.normal(1.0), (self.codebook, self.code_dim), jnp.float32
        )

    def __call__(self, z: Float[Array, "... e"]) -> Quantized:
        z = normalize(z)
        table = normalize(self.embedding)
        # Between unit vectors the nearest is the one with the largest product. float32: bfloat16
        # would pick other codes.
        codes = jnp.argmax(
            jax.lax.stop_gradient(z.reshape(-1, self.code_dim)) @ jax.lax.stop_gradient(table).T,
            axis=-1,
        )
        codes = codes.reshape(z.shape[:-1]).astype(jnp.int32)
        e = jnp.take(table, codes, axis=0)
        codebook_loss = jnp.mean(jnp.square(jax.lax.stop_gradient(z) - e))
        commitment_loss = jnp.mean(jnp.square(z - jax.lax.stop_gradient(e)))
        return Quantized(z + jax.lax.stop_gradient(e - z), codes, z, codebook_loss, commitment_loss)

    def lookup(self, codes: Int[Array, "..."]) -> Float[Array, "... e"]:
        """Unit vectors of `codes`; those of `__call__` up to its straight-through sum."""
        return jnp.take(normalize(self.embedding), codes, axis=0)
