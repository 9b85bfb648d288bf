"""Iterative parallel decoding of masked codes, and guidance (§2.2, PAPER_FACTS 5)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Decoded(NamedTuple):
    """`codes` has no mask left; `history` [steps b s] is what each step handed to the next."""

    codes: Int[Array, "b s"]
    history: Int[Array, "i b s"]


def guide(conditional: Array, unconditional: Array, scale: Array | float) -> Array:
    """l = (1 + λ) l_c - λ l_u. λ = 0 is the conditional model; other tools call 1 + λ the scale."""
    return (1 + scale) * conditional - scale * unconditional


def masked_after(steps: int, length: int) -> Int[np.ndarray, "i u"]:
    """⌊u·γ(s/T)⌋ after steps s = 1..T for u = 0..`length` codes unknown at the start."""
    # float64 on the host: in float32, γ = 1/2 lands on either side of an integer.
    gamma = np.clip(np.cos(np.pi / 2 * np.arange(1, steps + 1) / steps), 1e-6, 1)
    return np.floor(gamma[:, None] * np.arange(length + 1)).astype(np.int32)


def decode(
    logits_fn: Callable[[Int[Array, "b s"]], Float[Array, "b s k"]],
    codes: Int[Array, "b s"],
    keys: Array,
    *,
    steps: int,
    choice_temperature: Array | float,
    mask_id: int,
) -> Decoded:
    """Fills every `mask_id` of `codes` in `steps` steps; known codes stay as they are.

    Each step samples all unknown codes at temperature 1, keeps the most confident and masks the
    others again, ⌊U·cos(πs/2T)⌋ of the U unknown at the start. Confidence is log p plus Gumbel
    noise of scale `choice_temperature`·(1 - s/T). `keys` holds one key per row, so that a row's
    result does not depend on its batch. Returns what the last step sampled, before re-masking.
    """
    unknown_at_start = (codes == mask_id).sum(-1)
    keep_masked = jnp.asarray(masked_after(steps, codes.shape[1]))

    def step(carry, index):
        codes, _ = carry
        noise = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)))(keys)
        logits = logits_fn(codes).astype(jnp.float32)
        unknown = codes == mask_id
        sampled = jax.vmap(jax.random.categorical)(noise[:, 0], logits)
        filled = jnp.where(unknown, sampled, codes)
        remain = jnp.minimum(unknown.sum(-1) - 1, keep_masked[index, unknown_at_start])
        remain = jnp.maximum(1, remain)
        log_p = jnp.take_along_axis(logits, sampled[..., None], -1)[..., 0]
        log_p -= jax.nn.logsumexp(logits, axis=-1)
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, codes.shape[1:]))(noise[:, 1])
        confidence = log_p + choice_temperature * (1 - (index + 1) / steps) * gumbel
        confidence = jnp.where(unknown, confidence, jnp.inf)
        cut = jnp.take_along_axis(jnp.sort(confidence, axis=-1), remain[:, None], axis=-1)
        masked = jnp.where(confidence < cut, mask_id, filled)
        return (masked, filled), masked

    # One [MASK] always survives in the carried codes: the result is the last step's filled ones.
    (_, filled), history = jax.lax.scan(step, (codes, codes), jnp.arange(steps))
    return Decoded(filled, history)
