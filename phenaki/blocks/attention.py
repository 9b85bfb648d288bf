"""Multi-head self-attention and cross-attention."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phenaki.blocks import attention_impl, sharding
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
        width = x.shape[-1]
        qkv = Dense((3, self.heads, width // self.heads), self.dtype, name="qkv")(x)
        drop = _dropout(self.dropout, deterministic)
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
        width = x.shape[-1]
        query = Dense((self.heads, width // self.heads), self.dtype, name="query")(x)
        drop = _dropout(self.dropout, deterministic)
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
