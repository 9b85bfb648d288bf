"""Dense layers and multi-head attention."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki.blocks import attention_impl, reductions, sharding
from phenaki.blocks.dropout import Dropout


class Dense(nn.Module):
    """x @ kernel + bias over the last axis, which becomes `features` (an int or several axes)."""

    features: int | tuple[int, ...]
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Array:
        features = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        total = 1
        for size in features:
            total *= size

        def init(key, shape):
            return self.kernel_init(key, (shape[0], total), jnp.float32).reshape(shape)

        kernel = self.param("kernel", init, (x.shape[-1], *features))
        bias = self.param("bias", nn.initializers.zeros_init(), features)
        kernel, bias, x = (value.astype(self.dtype) for value in (kernel, bias, x))
        if sharding.axis_size("tensor") > 1:  # heads stay split
            return jnp.tensordot(x, kernel, 1) + bias
        # One plain matrix product: XLA's CPU backend is a quarter slower on the batched form.
        flat = x if sharding.is_split() else x.reshape(-1, x.shape[-1])
        out = flat @ sharding.replicated(kernel.reshape(-1, total)) + bias.reshape(-1)
        return out.reshape(*x.shape[:-1], *features)


def attend(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b u h e"],
    value: Float[Array, "b u h e"],
    mask: Bool[Array, "..."] | None = None,
    dropout: Dropout | None = None,
    attention: str = "xla",
) -> Float[Array, "b s h e"]:
    """softmax(q k / √e) v with a float32 softmax.

    `mask` broadcasts to [b h s u]; False hides a key. A row whose keys are all hidden attends
    uniformly: gate such rows yourself. `attention` is that of `kernels.choose`: a kernel is taken
    only for long sequences without mask.
    """
    if sharding.axis_size("sequence") > 1 and key.shape[1] > sharding.SHORT_SEQUENCE:
        # Each device's queries see all keys: gather those, not the scores.
        axes: sharding.Axes = {0: sharding.BATCH, 2: "tensor"}
        split: sharding.Axes = {0: sharding.BATCH, 1: "sequence", 2: "tensor"}
        key, value = (
            sharding.all_gather_with_sharded_gradient(x, axes, split) for x in (key, value)
        )
    if mask is None and dropout is None:
        kernel = attention_impl.choose(attention, query, key)
        if kernel is not None:
            return kernel(query, key, value)
    if mask is None and dropout is not None and attention_impl.drops(attention, query, key):
        shape = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
        return attention_impl.dropped(query, key, value, dropout.words(shape), dropout.rate)
    scale = query.shape[-1] ** -0.5
    if max(query.shape[1], key.shape[1]) <= sharding.SHORT_SEQUENCE:
        return _attend_small(query * scale, key, value, mask, dropout)
    scores = jnp.einsum("bshe,buhe->bhsu", query * scale, key, preferred_element_type=jnp.float32)
    weights = _weights(scores, mask, dropout, value.dtype)
    return jnp.einsum("bhsu,buhe->bshe", weights, value)


def _weights(scores, mask, dropout, dtype):
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = _softmax(scores)
    if dropout is None:
        return weights.astype(dtype)
    # The TPU compiler overflows its stack where it fuses the mask into both products around it.
    return jax.lax.optimization_barrier(dropout(weights).astype(dtype))


@jax.custom_vjp
def _softmax(scores):
    return jax.nn.softmax(scores, axis=-1)


def _softmax_forward(scores):
    weights = jax.nn.softmax(scores, axis=-1)
    return weights, weights


def _softmax_backward(weights, gradient):
    return (weights * (gradient - reductions.inner(gradient, weights)[..., None]),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def _attend_small(query, key, value, mask, dropout):
    # Thousands of 6x6 products (attention over time) drown in per-call overhead as matrix products;
    # as sums over the head width they fuse into one loop.
    scores = jnp.sum(query[:, :, None] * key[:, None], axis=-1, dtype=jnp.float32)  # [b s u h]
    scores = jnp.moveaxis(scores, -1, 1)
    weights = jnp.moveaxis(_weights(scores, mask, dropout, value.dtype), 1, -1)
    return jnp.sum(weights[..., None] * value[:, None], axis=2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused query-key-value product."""

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    attention: str = "xla"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b s d"], mask=None, deterministic: bool = True
    ) -> Float[Array, "b s d"]:
        width = x.shape[-1]
        qkv = Dense((3, self.heads, width // self.heads), self.dtype, name="qkv")(x)
        drop = _dropout(self.dropout, deterministic)
        out = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], mask, drop, self.attention)
        return Dense(width, self.dtype, name="out")(out.reshape(x.shape))


def _dropout(rate, deterministic):
    if not rate or deterministic:
        return None
    return Dropout(rate, deterministic=False)


class CrossAttention(nn.Module):
    """Multi-head attention to given keys and values; zero where a row has nothing to attend to."""

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b s d"],
        key_value: Float[Array, "b l 2 h e"],
        mask: Bool[Array, "b l"],
        deterministic: bool = True,
    ) -> Float[Array, "b s d"]:
        width = x.shape[-1]
        query = Dense((self.heads, width // self.heads), self.dtype, name="query")(x)
        drop = _dropout(self.dropout, deterministic)
        out = attend(query, key_value[:, :, 0], key_value[:, :, 1], mask[:, None, None], drop)
        out = Dense(width, self.dtype, name="out")(out.reshape(x.shape))
        # No caption: the branch is gone, so a dropped sample cannot depend on text (PAPER §2.2).
        return jnp.where(mask.any(-1)[:, None, None], out, 0)
