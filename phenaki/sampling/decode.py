"""Iterative parallel decoding of masked tokens, by confidence or by a token critic's scores.

MaskGIT's sampler step by step: docs/paper.md#sampler. Networks come in as functions of tokens.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from phenaki.sampling import draws
from phenaki.sampling import views as step_views
from phenaki.sampling.schedules import COSINE, Schedule


class Unfinished(NamedTuple):
    """Decoding between two steps."""

    following: Int[Array, ""]  # the next step; -1 before the first, i after the last
    passes: Float[Array, ""]  # so far
    tokens: Int[Array, "b s"]  # masked again in part


class Decoded(NamedTuple):
    """The sampled tokens, and for each of the i steps what it did.

    `history`, `sampled` and `scores` are the trace, None if it is not kept. `scores` are infinite
    where a step had no choice, at tokens that were known before it; the lowest ones are masked
    again. `unfinished` is what a call of a single step is followed by.
    """

    tokens: Int[Array, "b s"]  # without a mask
    passes: Float[Array, ""]  # of each row through the network: the cost of the steps that were run
    history: Int[Array, "i b s"] | None = None  # after the step, masked again in part
    sampled: Int[Array, "i b s"] | None = None  # in the step, before masking again
    scores: Float[Array, "i b s"] | None = None
    unfinished: Unfinished | None = None


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


def plan(
    steps: int, length: int, schedule: Schedule = COSINE, by_critic: bool = False
) -> tuple[Int[np.ndarray, "i u"], Int[np.ndarray, " u"]]:
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
    logits_fn: Callable[..., Float[Array, "b s k"]],
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
    views: step_views.Views | None = None,
    costs: ArrayLike = 1.0,
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

    With `views`, which need `ranks`, the tokens of a step are those of `logits_fn(part, step,
    places=..., valid=...)`: of the latent frames that it sees, at their `places` in the clip, and
    `valid` where rows hide some. Noise is then drawn token by token, so that it does not depend on
    the view; of tokens that a step does not see, the trace has a neighbour's codes. `costs` are
    those of the steps, or of every step, in passes over a clip.

    With `trace` every step is run. Without, those are skipped that change nothing, because each row
    has one masked token left (`plan`): the same tokens, bit for bit.

    With `unfinished` its next step alone is run; the trace is 0 for other steps.
    """
    tokens = jnp.asarray(tokens, jnp.int32)
    free = tokens == mask_id  # not given: these may be masked again in any step
    unknown_at_start = free.sum(-1)
    table, useful_by_count = plan(steps, tokens.shape[1], schedule, score_fn is not None)
    useful = steps - 1 if trace else jnp.asarray(useful_by_count)[unknown_at_start].max()
    curve, costs = (jnp.broadcast_to(jnp.float32(x), (steps,)) for x in (temperature, costs))
    if score_fn is not None:
        curve = curve * (1 - (jnp.arange(steps) + 1) / steps)
    propose = draws.candidates(logits_fn, narrow, views, _seen_by_rows(free, table, ranks, views))
    rule = _rule(free, choice_temperature, ranks, score_fn, score_noise)
    masked = jnp.asarray(table)[:, unknown_at_start]
    step = functools.partial(_step, keys, propose, rule, curve, masked, mask_id)
    return _loop(step, tokens, costs, useful, trace, unfinished)


def _seen_by_rows(free, table, ranks, views):
    """(tokens of a latent frame, step) -> the latent frames that each row has begun."""
    if views is None:
        return None
    place, known = step_views.places(~free, ranks), (~free).sum(1)
    return functools.partial(step_views.begun, place, known, table)


def _step(keys, propose, rule, curve, masked, mask_id, tokens, index):
    """(the tokens after a step, `masked` [i b] of them again; all filled; their scores)."""
    left = 1 - (index + 1) / len(curve)
    noise = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)))(keys)
    unknown = tokens == mask_id
    sampled, logits = propose(noise[:, 0], tokens, index, curve[index])
    filled = jnp.where(unknown, sampled, tokens)
    scores = rule(noise[:, 1], logits, sampled, filled, unknown, left)
    return jnp.where(_lowest(scores, masked[index]), mask_id, filled), filled, scores


def _loop(step, tokens, costs, useful, trace, unfinished):
    """Runs the first `useful` steps and the last, or one of them."""
    steps = len(costs)

    def run(state):
        index, passes, tokens, _, kept = state
        done = step(tokens, index)
        kept = tuple(x.at[index].set(one) for x, one in zip(kept, done, strict=False))
        following = jnp.where(index + 1 < useful, index + 1, jnp.maximum(index + 1, steps - 1))
        return following, passes + costs[index], *done[:2], kept

    types = (jnp.int32, jnp.int32, jnp.float32) if trace else ()
    kept = tuple(jnp.zeros((steps, *tokens.shape), dtype) for dtype in types)
    stop: Any = len(costs)
    first, passes = jnp.where(useful > 0, 0, stop - 1), jnp.float32(0)
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
