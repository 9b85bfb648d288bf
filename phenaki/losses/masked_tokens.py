"""Losses over masked tokens (equation 3) and the token critic's loss, all in float32."""

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
    """Equation 3 per sample: mean of -log p(token) over its masked positions; and accuracy there.

    Label `smoothing` ε spreads that fraction of the target evenly over all k tokens; the paper has
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
    """The mean of each row of `values` [b s] over its masked positions; 0 for a row without any."""
    return (values * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def weight_samples(counts: Mapping[str, Array]) -> dict[str, Array]:
    """Weights every sample equally, whatever its kind and however many of its tokens are masked."""
    return {kind: jnp.ones(len(count)) for kind, count in counts.items()}


def weight_tokens(counts: Mapping[str, Array]) -> dict[str, Array]:
    """Weights every masked token equally: the mean over samples becomes one over masked tokens."""
    rows = sum(len(count) for count in counts.values())
    total = sum(count.sum() for count in counts.values())
    return {kind: count * (rows / total) for kind, count in counts.items()}


# {kind: weights [b]} of mean 1, from {kind: numbers of masked tokens [b]} of the whole step:
# neither the devices nor the micro-batches change the mean.
REDUCTIONS = {"sample": weight_samples, "code": weight_tokens}


def binary_cross_entropy(
    logits: Float[Array, "b s"], labels: Bool[Array, "b s"]
) -> Float[Array, "b s"]:
    """-log p(label), where σ(logit) is the probability of True."""
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(jnp.where(labels, -logits, logits))
