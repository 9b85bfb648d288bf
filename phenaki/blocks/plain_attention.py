"""Attention in XLA's own products around a float32 softmax: any length, mask and dropout."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki.blocks import reductions, sharding
from phenaki.blocks.dropout import DropoutMask


def xla(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b u h e"],
    value: Float[Array, "b u h e"],
    mask: Bool[Array, "..."] | None,
    dropout: DropoutMask | None,
) -> Float[Array, "b s h e"]:
    """softmax(q k / √e) v; a row whose keys are all hidden attends uniformly."""
    query = query * query.shape[-1] ** -0.5
    words, rate = (None, 0.0) if dropout is None else (dropout[:2], dropout.rate)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    return jnp.swapaxes(_attend(query, key, value, mask, words, rate), 1, 2)


# Products of [b h ..] with a gradient of our own, for two reasons. XLA's CPU backend transposes, in
# memory, each operand that is not of the form [m k] [k n]: here queries, keys and values, which are
# small, where einsum and JAX's gradient have it transpose all scores and weights. And Σ g·w of the
# gradient of softmax is an inner product over the head width, instead of one over all keys.
@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(query, key, value, mask, words, rate):
    return _attend_forward(query, key, value, mask, words, rate)[0]


def _attend_forward(query, key, value, mask, words, rate):
    product = _products(query, key)
    weights = jax.nn.softmax(_hide(product(query, key, 3, 3), mask), axis=-1)
    dropout = None if words is None else DropoutMask(words[0], words[1], rate)
    kept, of_weights = jax.vjp(lambda x: _drop(x, dropout, value.dtype), weights)
    out = product(kept, value, 3, 2).astype(value.dtype)
    return out, (query, key, value, mask, weights, kept, of_weights, out)


def _attend_backward(rate, residuals, gradient):
    query, key, value, mask, weights, kept, of_weights, out = residuals
    product = _products(query, key)
    inner = reductions.inner(out.astype(jnp.float32), gradient.astype(jnp.float32))[..., None]
    (for_weights,) = of_weights(product(gradient, value, 3, 3).astype(kept.dtype))
    for_scores = weights * (for_weights - inner)
    if mask is not None:  # of rows whose keys are all hidden
        for_scores = jnp.where(mask, for_scores, 0)
    for_query = product(for_scores, key, 3, 2).astype(query.dtype)
    for_key = jnp.swapaxes(product(query, for_scores, 2, 2), 2, 3).astype(key.dtype)
    for_value = jnp.swapaxes(product(gradient, kept, 2, 2), 2, 3).astype(value.dtype)
    return for_query, for_key, for_value, None, None


_attend.defvjp(_attend_forward, _attend_backward)


def _products(query, key):
    """The form of products that suits these lengths."""
    # Attention over time is thousands of 6x6 products, which drown in per-call overhead as matrix
    # products. As sums they fuse into one loop.
    short = max(query.shape[2], key.shape[2]) <= sharding.SHORT_SEQUENCE
    return _sums if short else _matrix_products


def _matrix_products(a, b, axis, other):
    """Products of [b h ..], summed over `axis` of `a` and `other` of `b`, in float32."""
    dimensions = (((axis,), (other,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _sums(a, b, axis, other):
    """The same, without a matrix product."""
    a, b = jnp.moveaxis(a, axis, -1), jnp.moveaxis(b, other, -1)
    return jnp.sum(a[:, :, :, None] * b[:, :, None], axis=-1, dtype=jnp.float32)


def _hide(scores, mask):
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(scores.dtype).min)


def _drop(weights, dropout, dtype):
    if dropout is None:
        return weights.astype(dtype)
    # The TPU compiler overflows its stack where it fuses the mask into both products around it.
    return jax.lax.optimization_barrier(dropout(weights).astype(dtype))
