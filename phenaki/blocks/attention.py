"""Multi-head self-attention and cross-attention."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from phenaki.blocks import attention_impl, sharding
from phenaki.blocks import packed_attention as packed
from phenaki.blocks.dense import Dense, Streams, matrix_product
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
    """Multi-head self-attention of [b s d] with one fused query-key-value product.

    Streams are attended each on its own; `mask` is that of all of them.
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: Streams, mask=None, deterministic: bool = True) -> Streams:
        width = jax.tree.leaves(x)[0].shape[-1]
        each = width // self.heads
        drop = _dropout(self.dropout, deterministic)
        qkv = functools.partial(Dense, (3, self.heads, each), self.dtype, name="qkv")
        out = functools.partial(Dense, width, self.dtype, name="out")

        def in_groups(x, qkv):
            scores = (x.shape[0], self.heads, x.shape[1], x.shape[1])
            return packed.attend(qkv, None if drop is None else drop.mask(scores), each)

        def plain(x, qkv):
            query, key, value = jnp.moveaxis(qkv, 2, 0)
            return attend(query, key, value, mask, drop, self.attention).reshape(x.shape)

        shapes = [stream.shape for stream in jax.tree.leaves(x)]
        if all(packed.supports(shape, self.heads, mask, self.attention) for shape in shapes):
            mixed = jax.tree.map(in_groups, x, qkv(product=packed.split_product)(x))
            return out(product=packed.join_product, inputs=width)(mixed)
        by_columns = functools.partial(matrix_product, split=sharding.COLUMNS)
        return out(product=by_columns)(jax.tree.map(plain, x, qkv()(x)))


class CrossAttention(nn.Module):
    """Multi-head attention to given keys and values; zero where a row has nothing to attend to.

    `x` [b s d], `key_value` [b l 2 h e] and `mask` [b l] have as many streams each.
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Streams,
        key_value: Streams,
        mask: PyTree[Bool[Array, "..."]],
        deterministic: bool = True,
    ) -> Streams:
        width = jax.tree.leaves(x)[0].shape[-1]
        drop = _dropout(self.dropout, deterministic)
        query = functools.partial(
            Dense, (self.heads, width // self.heads), self.dtype, name="query"
        )

        def gate(out, mask):
            # Without a caption the branch is zero: a softmax over hidden keys alone would attend
            # uniformly, so that a dropped caption would still be read (docs/paper.md#null-text).
            return jnp.where(mask.any(-1)[:, None, None], out, 0)

        def in_place(query, key_value, mask):
            scores = (len(query), self.heads, query.shape[1], mask.shape[1])
            dropped = None if drop is None else drop.mask(scores)
            return packed.cross_attend(query, key_value, mask, dropped)

        def plain(query, key_value, mask):
            key, value = key_value[:, :, 0], key_value[:, :, 1]
            out = attend(query, key, value, mask[:, None, None], drop, self.attention)
            return out.reshape(*out.shape[:2], width)

        def read(stream, mask):
            return packed.supports(stream.shape, self.heads, None, self.attention, mask.shape[1])

        if all(jax.tree.leaves(jax.tree.map(read, x, mask))):
            queries = query(product=packed.flat_product)(x)
            out = jax.tree.map(in_place, queries, key_value, mask)
        else:
            out = jax.tree.map(plain, query()(x), key_value, mask)
        return jax.tree.map(gate, Dense(width, self.dtype, name="out")(out), mask)


def _dropout(rate, deterministic):
    if not rate or deterministic:
        return None
    return Dropout(rate, deterministic=False)
