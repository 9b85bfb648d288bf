"""Multi-head self-attention and cross-attention."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki.blocks import attention_impl, sharding
from phenaki.blocks import packed_attention as packed
from phenaki.blocks.dense import Dense
from phenaki.blocks.dropout import Dropout


def attend(
    query: Float[Array, "b s h e"],
    key: Float[Array, "b u h e"],
    value: Float[Array, "b u h e"],
    mask: Bool[Array, "..."] | None = None,
    dropout: Dropout | None = None,
    attention: str = "xla",
) -> Float[Array, "b s h e"]:
    """softmax(q k / √e) v with a float32 softmax, and dropout of its weights.

    `mask` broadcasts to [b h s u]; False hides a key. A row whose keys are all hidden attends
    uniformly: gate such rows yourself. `attention` is a key of `attention_impl.CHOICES`.
    """
    if sharding.axis_size("sequence") > 1 and key.shape[1] > sharding.SHORT_SEQUENCE:
        # Each device's queries see all keys. Gathering keys and values moves less than gathering
        # the scores, which XLA might choose.
        axes: sharding.Axes = {0: sharding.BATCH, 2: "tensor"}
        split: sharding.Axes = {0: sharding.BATCH, 1: "sequence", 2: "tensor"}
        key, value = (
            sharding.all_gather_with_sharded_gradient(x, axes, split) for x in (key, value)
        )
    # One mask for every implementation, so that all of them drop the same weights.
    scores = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    dropped = None if dropout is None else dropout.mask(scores)
    name = attention_impl.select(attention, query, key, mask, dropped)
    return attention_impl.IMPLEMENTATIONS[name].call(query, key, value, mask, dropped)


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
        width, each = x.shape[-1], x.shape[-1] // self.heads
        drop = _dropout(self.dropout, deterministic)
        features = (3, self.heads, each)
        if packed.supports(x.shape, self.heads, mask, self.attention):
            product = packed.split_product
            qkv = Dense(features, self.dtype, product=product, name="qkv")(x)
            scores = (x.shape[0], self.heads, x.shape[1], x.shape[1])
            out = packed.attend(qkv, None if drop is None else drop.mask(scores), each)
            product = packed.join_product
            return Dense(width, self.dtype, product=product, inputs=width, name="out")(out)
        qkv = Dense(features, self.dtype, name="qkv")(x)
        out = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], mask, drop, self.attention)
        return Dense(width, self.dtype, name="out")(out.reshape(x.shape))


class CrossAttention(nn.Module):
    """Multi-head attention to given keys and values; zero where a row has nothing to attend to."""

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b s d"],
        key_value: Float[Array, "b l 2 h e"],
        mask: Bool[Array, "b l"],
        deterministic: bool = True,
    ) -> Float[Array, "b s d"]:
        width, keys = x.shape[-1], mask.shape[1]
        features = (self.heads, width // self.heads)
        drop = _dropout(self.dropout, deterministic)
        if packed.supports(x.shape, self.heads, None, self.attention, keys):
            query = Dense(features, self.dtype, product=packed.flat_product, name="query")(x)
            scores = (x.shape[0], self.heads, x.shape[1], keys)
            dropped = None if drop is None else drop.mask(scores)
            out = packed.cross_attend(query, key_value, mask, dropped)
        else:
            query = Dense(features, self.dtype, name="query")(x)
            key, value = key_value[:, :, 0], key_value[:, :, 1]
            out = attend(query, key, value, mask[:, None, None], drop, self.attention)
        out = Dense(width, self.dtype, name="out")(out.reshape(x.shape))
        # Without a caption the branch is zero: a softmax over hidden keys alone would attend
        # uniformly, so that a dropped caption would still be read (docs/paper.md#null-text).
        return jnp.where(mask.any(-1)[:, None, None], out, 0)


def _dropout(rate, deterministic):
    if not rate or deterministic:
        return None
    return Dropout(rate, deterministic=False)
