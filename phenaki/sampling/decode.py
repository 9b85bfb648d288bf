"""Iterative parallel decoding of masked tokens, by confidence or by a token critic's scores.

MaskGIT's sampler step by step: docs/paper.md#sampler. Networks come in as functions of tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from phenaki.sampling.schedules import COSINE, Schedule

BLOCK = 128  # codes: about the square root of the paper's 8192, and one row of lanes of a TPU


class Unfinished(NamedTuple):
    """Decoding between two steps."""

    following: Int[Array, ""]  # the next step; -1 before the first, i after the last
    passes: Int[Array, ""]  # so far
    tokens: Int[Array, "b s"]  # masked again in part


class Decoded(NamedTuple):
    """The sampled tokens, and for each of the i steps what it did.

    `history`, `sampled` and `scores` are the trace, None if it is not kept. `scores` are infinite
    where a step had no choice, at tokens that were known before it; the lowest ones are masked
    again. `unfinished` is what a call of a single step is followed by.
    """

    tokens: Int[Array, "b s"]  # without a mask
    passes: Int[
        Array, ""
    ]  # of each row through the network: steps that were run, guided ones twice
    history: Int[Array, "i b s"] | None = None  # after the step, masked again in part
    sampled: Int[Array, "i b s"] | None = None  # in the step, before masking again
    scores: Float[Array, "i b s"] | None = None
    unfinished: Unfinished | None = None


def restrict(
    logits: Float[Array, "b s k"], top_k: Array | int, top_p: Array | float
) -> Float[Array, "b s k"]:
    """`logits` with -inf for all but the likeliest codes.

    Keeps the `top_k` likeliest (0: all) of the fewest codes whose probabilities sum to `top_p`.
    Codes exactly as likely as the last one kept are kept, too.
    """
    falling = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    # The probability of all codes that are likelier than the one at a rank.
    before = jnp.cumsum(jax.nn.softmax(falling, axis=-1), axis=-1)
    before = jnp.pad(before[..., :-1], ((0, 0), (0, 0), (1, 0)))
    rank = jnp.arange(logits.shape[-1])
    kept = (before < top_p) & ((rank < top_k) | (jnp.asarray(top_k) == 0)) | (rank == 0)
    least = jnp.where(kept, falling, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


def plausible(logits: Float[Array, "b s k"], min_p: Array | float) -> Float[Array, "b s k"]:
    """`logits` with -inf for codes less likely than `min_p` times the likeliest one (0: none)."""
    least = logits.max(-1, keepdims=True) + jnp.log(min_p)
    return jnp.where(logits >= least, logits, -jnp.inf)


def masked_after(
    steps: int, length: int, schedule: Schedule = COSINE, round_up: bool = False
) -> Int[np.ndarray, "i u"]:
    """How many tokens are masked after step i = 1..`steps`: ⌊u·γ(i/steps)⌋, or ⌈ ⌉ rounded up.

    The columns are u = 0..`length` tokens unknown at the start.
    """
    # In float64 on the host, nudged to the side of the exact value: where u·γ is an integer, as for
    # γ = 1/2, rounding errors must not lose a token.
    unknown = np.arange(length + 1)
    masked = schedule((np.arange(1, steps + 1) / steps)[:, None], unknown) * unknown
    return (np.ceil(masked - 1e-9) if round_up else np.floor(masked + 1e-9)).astype(np.int32)


def _plan(steps, length, schedule, by_critic):
    """(`masked_after` as decoding does it [i u], how many steps but the last matter [u]).

    Without a critic, at least one token is fixed in every step, and one stays masked. A step that
    finds only that one samples it, and masks it again: the last step samples it from the same
    tokens with noise of its own, so that steps between change nothing.
    """
    counts = masked_after(steps, length, schedule, round_up=by_critic)
    if by_critic:
        counts[-1] = 0
        return counts, np.full(length + 1, steps - 1)
    before = np.arange(length + 1)
    useful = np.zeros(length + 1, int)
    for step in range(steps):
        useful += (before > 1) & (step < steps - 1)
        before = np.maximum(1, np.minimum(before - 1, counts[step]))
        counts[step] = before
    return counts, useful


def decode(
    logits_fn: Callable[[Int[Array, "b s"], Array], Float[Array, "b s k"]],
    tokens: Int[Array, "b s"],
    keys: Array,
    *,
    steps: int,
    choice_temperature: Array | float,
    mask_id: int,
    schedule: Schedule = COSINE,
    temperature: ArrayLike = 1.0,
    ranks: Int[np.ndarray, " r"] | None = None,
    narrow: Callable[[Float[Array, "b s k"]], Float[Array, "b s k"]] | None = None,
    score_fn: Callable[[Int[Array, "b s"]], Float[Array, "b s"]] | None = None,
    score_noise: Array | float = 1.0,
    trace: bool = True,
    unfinished: Unfinished | None = None,
) -> Decoded:
    """Fills every `mask_id` of `tokens` in `steps` steps; known tokens stay as they are.

    Each step samples all unknown tokens from `logits_fn(tokens, step)`, at `temperature` and among
    the codes that `narrow` leaves, and masks the lowest `_confidence` again. With a token critic,
    whose logits of "sampled" are `score_fn`, those of the lowest `_plausibility` are masked again,
    and `temperature` falls to 0 over the steps. Without a critic but with `ranks`, the place of
    every position in an order (`phenaki.sampling.orders`; a shorter clip is a prefix), the last
    ones are masked again, whatever was sampled. `temperature` may have a value for every step.
    `keys` has one key per row, so that a row's result does not depend on its batch. The result is
    what the last step sampled, before masking again.

    With `trace` every step is run. Without, those are skipped that change nothing, because each row
    has one masked token left (`_plan`): the same tokens, bit for bit.

    With `unfinished` its next step alone is run; the trace is 0 for other steps.
    """
    tokens = jnp.asarray(tokens, jnp.int32)
    free = tokens == mask_id  # not given: these may be masked again in any step
    unknown_at_start = free.sum(-1)
    table, useful_by_count = _plan(steps, tokens.shape[1], schedule, score_fn is not None)
    useful = steps - 1 if trace else jnp.asarray(useful_by_count)[unknown_at_start].max()
    counts = jnp.asarray(table)
    rule = _rule(free, choice_temperature, ranks, score_fn, score_noise)
    temperature = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (steps,))

    def step(tokens, index):
        left = 1 - (index + 1) / steps
        noise = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)))(keys)
        logits = logits_fn(tokens, index).astype(jnp.float32)
        unknown = tokens == mask_id
        heat = temperature[index] if score_fn is None else temperature[index] * left
        sampled = draw(noise[:, 0], narrow(logits) if narrow else logits, heat)
        filled = jnp.where(unknown, sampled, tokens)
        scores = rule(noise[:, 1], logits, sampled, filled, unknown, left)
        masked = jnp.where(_lowest(scores, counts[index, unknown_at_start]), mask_id, filled)
        return masked, filled, scores

    return _loop(step, tokens, steps, useful, trace, unfinished)


def _loop(step, tokens, steps, useful, trace, unfinished):
    """Runs the first `useful` steps and the last, or one of them."""

    def run(state):
        index, passes, tokens, _, kept = state
        done = step(tokens, index)
        kept = tuple(x.at[index].set(one) for x, one in zip(kept, done, strict=False))
        following = jnp.where(index + 1 < useful, index + 1, jnp.maximum(index + 1, steps - 1))
        return following, passes + 1, *done[:2], kept

    types = (jnp.int32, jnp.int32, jnp.float32) if trace else ()
    kept = tuple(jnp.zeros((steps, *tokens.shape), dtype) for dtype in types)
    first, passes, stop = jnp.where(useful > 0, 0, steps - 1), jnp.int32(0), steps
    if unfinished is not None:
        first = jnp.where(unfinished.following < 0, first, unfinished.following)
        passes, tokens, stop = unfinished.passes, unfinished.tokens, first + 1
    start = (first, passes, tokens, tokens, kept)
    # One [MASK] always survives in the carried tokens: the result is what the last step filled in.
    following, passes, masked, filled, kept = jax.lax.while_loop(
        lambda state: state[0] < stop, run, start
    )
    arrays: Any = kept  # three, or none
    decoded = Decoded(filled, passes, *arrays)
    if unfinished is None:
        return decoded
    return decoded._replace(unfinished=Unfinished(following, passes, masked))


def draw(
    keys: Array, logits: Float[Array, "b s k"], temperature: Array | float = 1.0
) -> Int[Array, "b s"]:
    """Samples of softmax(`logits` / `temperature`), one key per row; the likeliest at 0.

    Large codebooks are sampled in two stages, first a block of codes and then a code of the block:
    Gumbel noise for every logit would take a fifth of a step's time on a CPU.
    """
    size = logits.shape[-1]
    if size <= BLOCK:
        noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        return jnp.argmax(temperature * noise + logits, axis=-1)
    outer, inner = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    # Shifted so that the likeliest logit is 0: it stays 0 when a temperature of 0 divides it.
    shifted = logits - logits.max(-1, keepdims=True)
    heated = shifted / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)
    heated = jnp.pad(heated, ((0, 0), (0, 0), (0, -size % BLOCK)), constant_values=-jnp.inf)
    blocks = heated.reshape(*heated.shape[:2], -1, BLOCK)
    block = draw(outer, jnp.log(jnp.exp(blocks).sum(-1)))
    chosen = jnp.take_along_axis(blocks, block[..., None, None], -2)[..., 0, :]
    return block * BLOCK + draw(inner, chosen)


def _rule(free, choice_temperature, ranks, score_fn, score_noise):
    """The scores of a step's tokens, of which the lowest are masked again: see `decode`."""

    def by_critic(keys, logits, sampled, filled, unknown, left):
        return _plausibility(keys, score_fn(filled), free, score_noise, left)

    def by_order(keys, logits, sampled, filled, unknown, left):
        return jnp.where(unknown, -jnp.asarray(ranks[: free.shape[1]], jnp.float32), jnp.inf)

    def by_confidence(keys, logits, sampled, filled, unknown, left):
        return _confidence(keys, _log_p(logits, sampled), unknown, choice_temperature * left)

    if score_fn is not None:
        return by_critic
    return by_confidence if ranks is None else by_order


def _confidence(
    keys: Array, log_p: Float[Array, "b s"], unknown: Bool[Array, "b s"], noise: Array | float
) -> Float[Array, "b s"]:
    """log p of the sampled tokens plus Gumbel noise of scale `noise`; infinite at known tokens.

    `log_p` is that at temperature 1 and among all codes, whatever the tokens were sampled with.
    """
    gumbel = jax.vmap(lambda key: jax.random.gumbel(key, log_p.shape[1:]))(keys)
    return jnp.where(unknown, log_p + noise * gumbel, jnp.inf)


def _plausibility(
    keys: Array,
    logits: Float[Array, "b s"],
    free: Bool[Array, "b s"],
    noise: Array | float,
    left: Array,
) -> Float[Array, "b s"]:
    """Minus a critic's `logits` of "sampled", with uniform noise in ±`noise`/2 · `left`.

    Infinite at given tokens only: a critic may mask again what an earlier step accepted.
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, logits.shape[1:]))(keys)
    sampled = logits.astype(jnp.float32) + noise * (uniform - 0.5) * left
    return jnp.where(free, -sampled, jnp.inf)


def _log_p(logits, tokens):
    picked = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def _lowest(scores, count):
    """True at the `count` [b] lowest scores of each row, which are finite."""
    ranked = jnp.pad(jnp.sort(scores, axis=-1), ((0, 0), (0, 1)), constant_values=jnp.inf)
    return scores < jnp.take_along_axis(ranked, count[:, None], axis=-1)
