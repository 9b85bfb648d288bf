"""Codes sampled from logits: which may be, one for every token, and those of a part of a clip."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phenaki.sampling.views import Views, positions

BLOCK = 128  # codes: about the square root of the paper's 8192, and one row of lanes of a TPU

Narrow = Callable[[Float[Array, "b s k"]], Float[Array, "b s k"]] | None


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


def candidates(
    logits_fn: Callable[..., Float[Array, "b s k"]],
    narrow: Narrow,
    views: Views | None,
    seen_by_rows: Callable[[int, Array], Bool[Array, "b t"]] | None,
) -> Any:
    """(keys, tokens, step, temperature) -> (a code for every token, the logits of all).

    With `views` it has no logits, and latent frames that a step does not see have the codes of
    their nearest neighbours. `seen_by_rows` (tokens of a latent frame, step) says what each row
    sees, where views hide the rest.
    """
    if views is None:
        return _of_clips(logits_fn, narrow)
    return _of_views(logits_fn, narrow, views, seen_by_rows)


def _of_clips(logits_fn, narrow):
    def propose(keys, tokens, step, temperature):
        logits = logits_fn(tokens, step).astype(jnp.float32)
        return draw(keys, narrow(logits) if narrow else logits, temperature), logits

    return propose


def _of_views(logits_fn, narrow, views, seen_by_rows):
    distinct = list(dict.fromkeys(views.frames))  # the network is compiled once for each

    def propose(keys, tokens, step, temperature):
        per_frame = tokens.shape[1] // views.total

        def part(frames, keys, tokens, step, temperature):
            places, valid = positions(frames, per_frame), None
            if views.hide:
                valid = jnp.repeat(seen_by_rows(per_frame, step), per_frame, axis=1)[:, places]
            logits = logits_fn(tokens[:, places], step, places=places, valid=valid)
            logits = logits.astype(jnp.float32)
            logits = narrow(logits) if narrow else logits
            # Token by token, so that a row's noise does not depend on what is seen of others.
            own = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, places)
            drawn = jax.vmap(draw, (1, 1, None), 1)(own, logits[:, :, None], temperature)
            nearest = np.abs(np.array(frames)[:, None] - np.arange(views.total)).argmin(0)
            return drawn[:, positions(nearest.tolist(), per_frame), 0]

        parts = [functools.partial(part, frames) for frames in distinct]
        which = jnp.array([distinct.index(frames) for frames in views.frames])
        return jax.lax.switch(which[step], parts, keys, tokens, step, temperature), None

    return propose
