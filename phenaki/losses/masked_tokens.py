"""Masked-token losses of MaskGIT (equation 3) and of token critics, in float32."""

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
    """(equation 3 per sample, accuracy): means of -log p(token) and of hits over masked positions.

    `smoothing` ε moves that fraction of the target from the true token to all k tokens alike; the
    paper has none (docs/paper.md#label-smoothing).
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
    # H = log Σ exp(z) - Σ p z: an inner product instead of a second pass over log p.
    shifted = logits - logits.max(-1, keepdims=True)
    weights = jnp.exp(shifted)
    total = weights.sum(-1)
    mean = reductions.inner(weights, shifted) / total
    return masked_mean(jnp.log(total) - mean, mask)


def masked_mean(values: Array, mask: Bool[Array, "b s"]) -> Float[Array, " b"]:
    """Per row, the mean of `values` [b s] where `mask` is True; 0 for a row without any."""
    return (values * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def weight_samples(counts: Mapping[str, Array]) -> dict[str, Array]:
    """Weight 1 for every sample, whatever its kind and however many of its tokens are masked."""
    return {kind: jnp.ones(len(count)) for kind, count in counts.items()}


def weight_tokens(counts: Mapping[str, Array]) -> dict[str, Array]:
    """Weights proportional to masked tokens, so that the mean is one over all masked tokens."""
    rows = sum(len(count) for count in counts.values())
    total = sum(count.sum() for count in counts.values())
    return {kind: count * (rows / total) for kind, count in counts.items()}


# `config.loss.reduction` -> a function from {kind: number of masked tokens [b]} to {kind: weights
# [b]} of mean 1. Counts are those of the whole step, so that neither devices nor micro-batches
# change the mean (docs/paper.md#loss-reduction).
REDUCTIONS = {"sample": weight_samples, "code": weight_tokens}


def binary_cross_entropy(
    logits: Float[Array, "b s"], labels: Bool[Array, "b s"]
) -> Float[Array, "b s"]:
    """-log p(label) per position, where σ(logit) is the probability of True."""
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(jnp.where(labels, -logits, logits))
