"""Losses as pure functions, all in float32."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phenaki.blocks import reductions


def masked_cross_entropy(
    logits: Float[Array, "b s k"],
    tokens: Int[Array, "b s"],
    mask: Bool[Array, "b s"],
    smoothing: float = 0.0,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Equation 3 per sample: mean of -log p(code) over its masked positions; and accuracy there.

    `smoothing` ε moves that share of the target from the code to all k codes alike; the paper has
    none.
    """
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    if smoothing:
        picked = (1 - smoothing) * picked + smoothing * logits.mean(-1)
    nll = jax.nn.logsumexp(logits, axis=-1) - picked
    hit = jnp.argmax(logits, axis=-1) == tokens
    return masked_mean(nll, mask), masked_mean(hit, mask)


def masked_entropy(logits: Float[Array, "b s k"], mask: Bool[Array, "b s"]) -> Float[Array, " b"]:
    """Entropy of the predictions in nats, per sample: mean over its masked positions."""
    logits = logits.astype(jnp.float32)
    less = logits - logits.max(-1, keepdims=True)
    weights = jnp.exp(less)
    total = weights.sum(-1)
    mean = reductions.inner(weights, less) / total
    return masked_mean(jnp.log(total) - mean, mask)


def masked_mean(values: Array, mask: Bool[Array, "b s"]) -> Float[Array, " b"]:
    """Per row, the mean of `values` [b s] where `mask` is True; 0 where it nowhere is."""
    return (values * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def weight_samples(counts: Mapping[str, Array]) -> dict[str, Array]:
    """Samples weigh alike, whatever their kind and however many of their codes are masked."""
    return {kind: jnp.ones(len(count)) for kind, count in counts.items()}


def weight_tokens(counts: Mapping[str, Array]) -> dict[str, Array]:
    """Masked codes weigh alike: the mean over samples becomes one over all masked codes."""
    rows = sum(len(count) for count in counts.values())
    total = sum(count.sum() for count in counts.values())
    return {kind: count * (rows / total) for kind, count in counts.items()}


# {kind: weights [b]}, of mean 1, from {kind: masked codes [b]} of the whole step: neither devices
# nor micro-batches change the mean.
REDUCTIONS = {"sample": weight_samples, "code": weight_tokens}


def binary_cross_entropy(
    logits: Float[Array, "b s"], labels: Bool[Array, "b s"]
) -> Float[Array, "b s"]:
    """-log p(label) of the probability σ(logit) of True."""
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(jnp.where(labels, -logits, logits))


def psnr(mean_squared_error: Float[Array, "..."]) -> Float[Array, "..."]:
    """Peak signal-to-noise ratio in dB for pixels in [0, 1]."""
    return -10 * jnp.log10(jnp.maximum(mean_squared_error, 1e-10))


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
    """exp of the entropy of code `counts`: k when all are used alike, 1 when one is."""
    share = counts / jnp.maximum(counts.sum(), 1)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))))
