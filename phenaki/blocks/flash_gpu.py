"""Flash attention with dropout and hidden keys for Hopper GPUs: the scores are never stored.

cuDNN's fused attention takes the seed of its dropout as a Python number, so that a compiled step
would drop the same weights for ever. These kernels compute the mask of `phenaki.blocks.dropout`,
which is the same on every mesh and platform. The forward pass and the gradient of queries keep
queries while keys pass by; the gradients of keys and values keep keys while queries pass by. Scores
are base-2 logarithms, for which GPUs have an instruction.

Shapes: b samples, s queries, h heads, u keys, e values per head.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, UInt32

from phenaki.blocks import reductions, warpgroups
from phenaki.blocks.dropout import kept
from phenaki.blocks.flash import SAVE_FOR_BACKWARD
from phenaki.blocks.warpgroups import BLOCK, full, product_through, product_transposed, spread

STEP = 64  # rows that pass at once in the backward kernels: two blocks of scores fit the registers
LOG2_E = math.log2(math.e)

# What a key's scores are limited to.
VISIBLE = math.inf
HIDDEN = -1e30  # where all keys are hidden, weights are equal, as in the plain form
PADDING = -math.inf  # no weight even then

Queries = Float[Array, "b s h e"]
Keys = Float[Array, "b u h e"]
Visible = Bool[Array, "b 1 1 u"] | None
Words = tuple[UInt32[Array, "b h s 1"], UInt32[Array, "b h 1 u"]] | None


def attention(
    query: Queries,
    key: Keys,
    value: Keys,
    visible: Visible,
    words: Words,
    rate: float,
    interpret: Any = False,
) -> Queries:
    """dropout(softmax(q k)) v in half precision; the caller scales the query.

    `visible` is False for hidden keys; None: all are visible. `words` are the rows and columns of a
    `DropoutMask` of the scores [b h s u]; None: nothing is dropped. `rate` is the fraction of
    weights that are dropped. `interpret` is that of `plgpu.kernel`.
    """
    batch, queries, _, width = query.shape
    keys = key.shape[1]
    limit = None
    if visible is not None or keys % BLOCK:
        limit = jnp.full((batch, keys), VISIBLE, jnp.float32)
        if visible is not None:
            limit = jnp.where(visible[:, 0, 0], limit, HIDDEN)
        limit = _pad(limit, {1: BLOCK}, PADDING)
    tiles = (_pad(x, {1: BLOCK, 3: warpgroups.WIDTH}) for x in (query, key, value))
    if words is not None:
        words = tuple(
            _pad(x.squeeze(axis), {2: BLOCK}) for x, axis in zip(words, (3, 2), strict=True)
        )
    return _attention(*tiles, limit, words, rate, interpret)[:, :queries, :, :width]


def _pad(x, multiples, fill=0):
    rests = [(0, -x.shape[axis] % multiples.get(axis, 1)) for axis in range(x.ndim)]
    return jnp.pad(x, rests, constant_values=fill)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attention(query, key, value, limit, words, rate, interpret):
    return _forward(query, key, value, limit, words, rate, interpret)[0]


def _forward(query, key, value, limit, words, rate, interpret):
    batch, queries, heads, _ = query.shape
    rows = jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32)
    still, moving = _sides(dict(query=query), key, value, limit, words)
    results = warpgroups.run(
        _forward_start,
        functools.partial(_forward_step, rate=rate),
        functools.partial(_forward_finish, rate=rate),
        still,
        moving,
        dict(query=query, top=rows, inverse=rows),
        BLOCK,
        interpret,
    )
    # From the scores, these are all that the backward pass needs to compute the weights again.
    saved = [checkpoint_name(results[x], SAVE_FOR_BACKWARD) for x in ("query", "top", "inverse")]
    return saved[0], (query, key, value, limit, words, *saved)


def _backward(rate, interpret, residuals, gradient):
    query, key, value, limit, words, out, top, inverse = residuals
    # The softmax's gradient, w (dw - Σ w dw): the sum equals out · d_out, which is much smaller.
    inner = reductions.inner(out.astype(jnp.float32), gradient.astype(jnp.float32))
    rows = dict(top=top, inverse=inverse, inner=jnp.swapaxes(inner, 1, 2))
    queries, keys = _sides(dict(query=query, gradient=gradient, **rows), key, value, limit, words)

    def gradients(step, still, moving, outputs):
        start = lambda width: {name: full(0.0, width) for name in outputs}  # noqa: E731
        step = functools.partial(step, rate=rate)
        return warpgroups.run(start, step, lambda x: x, still, moving, outputs, STEP, interpret)

    d_query = gradients(_query_gradient_step, queries, keys, dict(query=query))
    d_keys = gradients(_key_gradient_step, keys, queries, dict(key=key, value=value))
    return d_query["query"], d_keys["key"], d_keys["value"], None, None


_attention.defvjp(_forward, _backward)


def _sides(queries, key, value, limit, words):
    """What the kernels are given per query and per key, by name."""
    per_query, per_key = (None, None) if words is None else words
    keys = dict(key=key, value=value, limit=limit, words=per_key)
    sides = queries | dict(words=per_query), keys
    return tuple({name: x for name, x in side.items() if x is not None} for side in sides)


def _scores(still, moving, limit, axis):
    """Base-2 logarithms of weights before normalisation; keys are along `axis`."""
    scores = product_transposed(still, moving) * LOG2_E
    return scores if limit is None else jnp.minimum(scores, spread(limit, scores.shape, axis))


def _kept(still, moving, rate, shape):
    return kept(spread(still["words"], shape, 0), spread(moving["words"], shape, 1), rate)


def _forward_start(width):
    return full(-jnp.inf), full(0.0), full(0.0, width)


def _forward_step(queries, keys, carry, rate):
    top, total, sums = carry
    scores = _scores(queries["query"], keys["key"], keys.get("limit"), 1)
    highest = jnp.maximum(top, scores.max(axis=1))
    shrink = jnp.exp2(top - highest)
    weights = jnp.exp2(scores - spread(highest, scores.shape, 0))
    total = total * shrink + weights.sum(axis=1)
    if "words" in keys:
        weights = jnp.where(_kept(queries, keys, rate, scores.shape), weights, 0)
    sums = sums * spread(shrink, sums.shape, 0)
    return highest, total, sums + product_through(queries["scratch"], weights, keys["value"])


def _forward_finish(carry, rate):
    top, total, sums = carry
    inverse = 1 / total
    scale = inverse / (1 - rate)
    return dict(query=sums * spread(scale, sums.shape, 0), top=top, inverse=inverse)


def _query_gradient_step(queries, keys, carry, rate):
    scores = _scores(queries["query"], keys["key"], keys.get("limit"), 1)
    d_weights = product_transposed(queries["gradient"], keys["value"])
    keep = _kept(queries, keys, rate, scores.shape) if "words" in keys else None
    _, d_scores = _score_gradients(queries, keys, scores, d_weights, keep, rate, 0)
    return dict(query=carry["query"] + product_through(queries["scratch"], d_scores, keys["key"]))


def _key_gradient_step(keys, queries, carry, rate):
    scores = _scores(keys["key"], queries["query"], keys.get("limit"), 0)
    d_weights = product_transposed(keys["value"], queries["gradient"])
    keep = _kept(keys, queries, rate, scores.shape) if "words" in keys else None
    weights, d_scores = _score_gradients(queries, keys, scores, d_weights, keep, rate, 1)
    return dict(
        key=carry["key"] + product_through(keys["scratch"], d_scores, queries["query"]),
        value=carry["value"] + product_through(keys["scratch"], weights, queries["gradient"]),
    )


def _score_gradients(queries, keys, scores, d_weights, keep, rate, axis):
    """The weights after dropout, and the gradients of scores; queries are along `axis`."""
    shape = scores.shape
    weights = jnp.exp2(scores - spread(queries["top"], shape, axis))
    weights *= spread(queries["inverse"], shape, axis)
    dropped = weights
    if keep is not None:
        scale = jnp.where(keep, 1 / (1 - rate), 0)
        dropped, d_weights = weights * scale, d_weights * scale
    d_scores = weights * (d_weights - spread(queries["inner"], shape, axis))
    if "limit" in keys:
        visible = spread(keys["limit"], shape, 1 - axis) == VISIBLE
        d_scores = jnp.where(visible, d_scores, 0)
    return dropped, d_scores
