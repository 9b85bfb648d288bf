"""The bodies of the kernels of `phenaki.blocks.packed_flash`: one block of queries, p heads.

Scores are computed transposed, [u q], as in `phenaki.blocks.flash`. A product over the lanes of one
head is one over all 128 lanes, of which the other heads' are zero: matrix units take as long.
Arrays are refs: queries [c r 128], keys and values [n r 128], words and sums [p q] and [8 u].
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from phenaki.blocks.dropout import kept

LANES = 128
SUBLANES = 8  # words of keys are padded to them, so that they can be transposed on the chip
HIDDEN = -1e30  # the score of a key that the mask hides


def _product(a, b, over, precision=None):
    """The float32 product of two matrices over dimension `over[0]` of `a` and `over[1]` of `b`."""
    dimensions = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(
        a, b, dimensions, preferred_element_type=jnp.float32, precision=precision
    )


def _matrix(x):
    """[c r 128] as [c·r 128]; chunks that fill no tile of 16-bit numbers are merged as 32-bit."""
    wide = x if x.shape[1] % 16 == 0 else x.astype(jnp.float32)
    return wide.reshape(-1, LANES).astype(x.dtype)


def _chunks(x, shape, dtype):
    """[c·r 128] in float32 as [c r 128] in `dtype`."""
    wide = x.astype(dtype) if shape[1] % 16 == 0 else x
    return wide.reshape(shape).astype(dtype)


def _of_head(x, head, width):
    """`x` [.. 128] with zeros in the lanes of other heads."""
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.where((lane >= head * width) & (lane < (head + 1) * width), x, 0)


def _scale(given, head, rate):
    """[u q]: 1 / (1 - rate) where a weight stays, 0 where it is dropped; 1 without dropout."""
    if not rate:
        return 1.0
    rows, columns = given
    by_key = columns[...].T[:, head : head + 1].astype(jnp.uint32)
    return jnp.where(kept(rows[head : head + 1, :], by_key, rate), 1 / (1 - rate), 0)


def _scores(key, query, given, masked):
    scores = _product(key, query, (1, 1))
    if not masked:
        return scores
    return jnp.where(given[-1][...].T[:, SUBLANES - 1 :] > 0, scores, HIDDEN)


def forward(query, key, value, *rest, width, rate, masked=False):
    """A block's outputs, and the logarithm of each softmax's sum."""
    *given, out, total = rest
    q = _matrix(query[...]).astype(jnp.float32) * width**-0.5
    k, v = _matrix(key[...]), _matrix(value[...])
    mixed = jnp.zeros(q.shape, jnp.float32)
    for head in range(LANES // width):
        scores = _scores(k, _of_head(q, head, width).astype(k.dtype), given, masked)
        highest = scores.max(axis=0, keepdims=True)
        weights = jnp.exp(scores - highest)
        sums = weights.sum(axis=0, keepdims=True)
        total[head : head + 1, :] = highest + jnp.log(sums)
        weights = weights * (1 / sums) * _scale(given, head, rate)
        # Lanes of other heads get their values by these weights: they are cut off.
        mixed += _of_head(_product(weights.astype(v.dtype), v, (0, 0)), head, width)
    out[...] = _chunks(mixed, out.shape, out.dtype)


def _gradients(query, key, value, *rest, width, rate, masked):
    """The queries' gradient [q 128]; adds to those of keys and values, which the last two hold."""
    *given, gradient, out, total, d_key, d_value = rest

    # They sum over the blocks of queries; the first block starts at zero.
    @pl.when(pl.program_id(2) == 0)
    def _():
        d_key[...] = jnp.zeros_like(d_key)
        d_value[...] = jnp.zeros_like(d_value)

    q = _matrix(query[...]).astype(jnp.float32) * width**-0.5
    k, v = _matrix(key[...]), _matrix(value[...])
    g = _matrix(gradient[...]).astype(jnp.float32)
    product = _matrix(out[...]).astype(jnp.float32) * g
    d_query = jnp.zeros(q.shape, jnp.float32)
    for head in range(LANES // width):
        own: Any = functools.partial(_of_head, head=head, width=width)
        q_own, g_own = own(q).astype(k.dtype), own(g).astype(v.dtype)
        weights = jnp.exp(_scores(k, q_own, given, masked) - total[head : head + 1, :])
        scale = _scale(given, head, rate)
        d_value[...] += _product((weights * scale).astype(v.dtype), g_own, (1, 0))
        d_weights = _product(v, g_own, (1, 1)) * scale
        # The softmax's gradient, w (dw - Σ w dw): the sum equals out · d_out. As a product with
        # ones it is a row, as the scores need it.
        ones = jnp.ones((SUBLANES, LANES), jnp.float32)
        inner = _product(ones, own(product), (1, 1), jax.lax.Precision.HIGHEST)[:1]
        d_scores = (weights * (d_weights - inner)).astype(k.dtype)
        d_key[...] += _product(d_scores, q_own, (1, 0))
        d_query += own(_product(d_scores, k, (0, 0)))
    return d_query * width**-0.5


def backward(query, key, value, *rest, width, rate):
    """The gradients of self-attention: three parts of one array."""
    *inputs, d_qkv, d_key, d_value = rest
    d_query = _gradients(
        query, key, value, *inputs, d_key, d_value, width=width, rate=rate, masked=False
    )
    d_query = _chunks(d_query, query.shape, d_qkv.dtype)
    step, (count, block) = pl.program_id(2), query.shape[:2]
    if d_qkv.shape[0] > 1:
        d_qkv[pl.ds(step * count, count), 0] = d_query
    else:
        d_qkv[0, 0, pl.ds(step * block, block)] = d_query[0]

    @pl.when(step == pl.num_programs(2) - 1)
    def _():
        shape = (d_qkv.shape[0], *d_qkv.shape[2:])
        d_qkv[:, 1] = _chunks(d_key[...], shape, d_qkv.dtype)
        d_qkv[:, 2] = _chunks(d_value[...], shape, d_qkv.dtype)


def cross_backward(query, key, value, *rest, width, rate):
    """The gradients of cross-attention: three arrays."""
    *inputs, d_query, d_key, d_value, key_sum, value_sum = rest
    found = _gradients(
        query, key, value, *inputs, key_sum, value_sum, width=width, rate=rate, masked=True
    )
    d_query[...] = _chunks(found, d_query.shape, d_query.dtype)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        d_key[...] = _chunks(key_sum[...], d_key.shape, d_key.dtype)
        d_value[...] = _chunks(value_sum[...], d_value.shape, d_value.dtype)
