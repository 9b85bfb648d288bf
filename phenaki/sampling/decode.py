"""Iterative parallel decoding of masked codes, guidance, and a critic's (docs/paper.md#sampler)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phenaki.sampling.schedules import COSINE, Schedule

# λ by the share of the steps done, this one included; "linear" ends at the λ given.
RAMPS: dict[str, Callable] = {"constant": lambda done: 1.0, "linear": lambda done: done}
BLOCK = 128  # codes: about the root of the paper's 8192, and a TPU's row of lanes


class Decoded(NamedTuple):
    """`codes` has no mask left. Of each step: `history` is what it handed to the next, `sampled`
    its codes before it masked some of them again, and `scores` what it chose those by, the lowest;
    they are infinite where there was no choice.
    """

    tokens: Int[Array, "b s"]
    history: Int[Array, "i b s"]
    sampled: Int[Array, "i b s"] | None
    scores: Float[Array, "i b s"] | None


def guide(conditional: Array, unconditional: Array, scale: Array | float) -> Array:
    """l = (1 + λ) l_c - λ l_u. λ = 0 is the conditional model; other tools call 1 + λ the scale."""
    return (1 + scale) * conditional - scale * unconditional


def restrict(
    logits: Float[Array, "b s k"], top_k: Array | int, top_p: Array | float
) -> Float[Array, "b s k"]:
    """-inf for all but the likeliest codes: `top_k` of them (0: all), and the fewest that have
    probability `top_p` together. What is exactly as likely as the last one kept stays, too.
    """
    falling = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    before = jnp.cumsum(jax.nn.softmax(falling, axis=-1), axis=-1)
    before = jnp.pad(before[..., :-1], ((0, 0), (0, 0), (1, 0)))  # of all that is likelier
    rank = jnp.arange(logits.shape[-1])
    kept = (before < top_p) & ((rank < top_k) | (jnp.asarray(top_k) == 0)) | (rank == 0)
    least = jnp.where(kept, falling, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


def masked_after(
    steps: int, length: int, schedule: Schedule = COSINE, up: bool = False
) -> Int[np.ndarray, "i u"]:
    """⌊u·γ(s/T)⌋ after steps s = 1..T for u = 0..`length` codes unknown at the start; or ⌈ ⌉."""
    # float64 on the host, and a little to the side: γ = 1/2 must not miss an integer.
    unknown = np.arange(length + 1)
    masked = schedule((np.arange(1, steps + 1) / steps)[:, None], unknown) * unknown
    return (np.ceil(masked - 1e-9) if up else np.floor(masked + 1e-9)).astype(np.int32)


def decode(
    logits_fn: Callable[[Int[Array, "b s"], Array], Float[Array, "b s k"]],
    tokens: Int[Array, "b s"],
    keys: Array,
    *,
    steps: int,
    choice_temperature: Array | float,
    mask_id: int,
    schedule: Schedule = COSINE,
    temperature: Array | float = 1.0,
    narrow: Callable[[Float[Array, "b s k"]], Float[Array, "b s k"]] | None = None,
    score_fn: Callable[[Int[Array, "b s"]], Float[Array, "b s"]] | None = None,
    score_noise: Array | float = 1.0,
) -> Decoded:
    """Fills every `mask_id` of `codes` in `steps` steps; known codes stay as they are.

    Each step samples all unknown codes from `logits_fn(codes, step)`, at `temperature` and among
    those that `narrow` leaves, keeps the most confident and masks the others again, ⌊U·γ(s/T)⌋ of
    the U unknown at the start. Confidence is log p, at temperature 1 and among all codes, plus
    Gumbel noise of scale `choice_temperature`·(1 - s/T). `keys` holds one key per row, so that a
    row's result does not depend on its batch. Returns what the last step sampled, before
    re-masking.

    With a token critic's `score_fn`, the logits of "sampled" for codes without a mask, every code
    that was unknown at the start is open in every step: the ⌈U·γ(s/T)⌉ highest scores, plus uniform
    noise in ±`score_noise`/2·(1 - s/T), are masked again. `temperature` falls to 0 with 1 - s/T.
    """
    free = tokens == mask_id
    unknown_at_start = free.sum(-1)
    keep_masked = jnp.asarray(
        masked_after(steps, tokens.shape[1], schedule, up=score_fn is not None)
    )

    def step(carry, index):
        tokens, _ = carry
        left = 1 - (index + 1) / steps
        noise = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)))(keys)
        logits = logits_fn(tokens, index).astype(jnp.float32)
        unknown = tokens == mask_id
        heat = temperature if score_fn is None else temperature * left
        sampled = draw(noise[:, 0], narrow(logits) if narrow else logits, heat)
        filled = jnp.where(unknown, sampled, tokens)
        remain = keep_masked[index, unknown_at_start]
        if score_fn is None:
            remain = jnp.maximum(1, jnp.minimum(unknown.sum(-1) - 1, remain))
            gumbel = jax.vmap(lambda key: jax.random.gumbel(key, tokens.shape[1:]))(noise[:, 1])
            scores = _log_p(logits, sampled) + choice_temperature * left * gumbel
            scores = jnp.where(unknown, scores, jnp.inf)
        else:
            remain = jnp.where(index == steps - 1, 0, remain)
            shift = jax.vmap(lambda key: jax.random.uniform(key, tokens.shape[1:]))(noise[:, 1])
            fake = score_fn(filled).astype(jnp.float32) + score_noise * (shift - 0.5) * left
            scores = jnp.where(free, -fake, jnp.inf)
        masked = jnp.where(_lowest(scores, remain), mask_id, filled)
        return (masked, filled), (masked, filled, scores)

    # One [MASK] always survives in the carried codes: the result is the last step's filled ones.
    (_, filled), trace = jax.lax.scan(step, (tokens, tokens), jnp.arange(steps))
    return Decoded(filled, *trace)


def draw(
    keys: Array, logits: Float[Array, "b s k"], temperature: Array | float = 1.0
) -> Int[Array, "b s"]:
    """Tokens of softmax(`logits` / `temperature`), one key per row; the likeliest at 0.

    A large codebook is drawn from in two stages, a block of codes and then one of its codes: noise
    for every logit would take a CPU a fifth of a step's time.
    """
    size = logits.shape[-1]
    if size <= BLOCK:
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        return jnp.argmax(temperature * noise + logits, axis=-1)
    outer, inner = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    shifted = logits - logits.max(-1, keepdims=True)  # at no temperature the likeliest stay at 0
    heated = shifted / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)
    heated = jnp.pad(heated, ((0, 0), (0, 0), (0, -size % BLOCK)), constant_values=-jnp.inf)
    blocks = heated.reshape(*heated.shape[:2], -1, BLOCK)
    block = draw(outer, jnp.log(jnp.exp(blocks).sum(-1)))
    chosen = jnp.take_along_axis(blocks, block[..., None, None], -2)[..., 0, :]
    return block * BLOCK + draw(inner, chosen)


def _log_p(logits, tokens):
    picked = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def _lowest(scores, count):
    """True at the `count` [b] lowest of each row, which are finite."""
    ranked = jnp.pad(jnp.sort(scores, axis=-1), ((0, 0), (0, 1)), constant_values=jnp.inf)
    return scores < jnp.take_along_axis(ranked, count[:, None], axis=-1)
