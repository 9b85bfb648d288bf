"""Losses as pure functions, all in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def masked_cross_entropy(
    logits: Float[Array, "b s k"], codes: Int[Array, "b s"], mask: Bool[Array, "b s"]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Equation 3 per sample: mean of -log p(code) over its masked positions; and accuracy there."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - picked
    hit = jnp.argmax(logits, axis=-1) == codes
    count = jnp.maximum(mask.sum(-1), 1)
    return (nll * mask).sum(-1) / count, (hit & mask).sum(-1) / count


def psnr(mean_squared_error: Float[Array, "..."]) -> Float[Array, "..."]:
    """Peak signal-to-noise ratio in dB for pixels in [0, 1]."""
    return -10 * jnp.log10(jnp.maximum(mean_squared_error, 1e-10))


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
    """exp of the entropy of code `counts`: k when all are used alike, 1 when one is."""
    share = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))))
