"""Bidirectional transformer over video tokens, the common part of MaskGIT and token critics."""

import math
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from phenaki.blocks import sharding
from phenaki.blocks.dense import Dense, Streams, product_by_heads
from phenaki.blocks.dropout import Dropout
from phenaki.blocks.transformer import Transformer
from phenaki.types import Text

EMBED_INIT = nn.initializers.truncated_normal(0.02)


def factorised(grid: tuple[int, int, int], std: float):
    """Initialiser of a [t·m·n, d] position table as a sum of one N(0, `std`) table per axis.

    Only the start is factorised: every entry is learned.
    """
    # Neighbours start out similar, which small models need to learn motion in reasonable time. The
    # paper does not mention it (docs/paper.md#maskgit-head).

    def init(key, shape, dtype=jnp.float32):
        table = nn.initializers.normal(std)(key, (sum(grid), shape[-1]), dtype)
        t, m, n = jnp.split(table, (grid[0], grid[0] + grid[1]))
        return (t[:, None, None] + m[:, None] + n).reshape(shape)

    return init


class TokenTransformer(nn.Module):
    """From tokens and text to features; `grid` is the (t, m, n) of the longest clip.

    `text_dim` is the width of the text embeddings, from which every layer's keys and values are
    projected directly (docs/paper.md#text-encoder); None builds a network that reads no text.
    `position_init` is "normal" or "factorised". `remat`, `unroll` and `attention` are those of
    `Transformer`.
    """

    grid: tuple[int, int, int]
    codebook: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    text_dim: int | None
    dropout: float
    attention_dropout: float
    position_init: str = "normal"
    dtype: Any = jnp.float32
    remat: str = "none"
    unroll: int = 1
    attention: str = "xla"

    @property
    def ids(self) -> int:
        """Rows of the embedding table: the number of input ids."""
        return self.codebook

    def setup(self):
        self.embedding = self.param("embedding", EMBED_INIT, (self.ids, self.width))
        positions = {"normal": EMBED_INIT, "factorised": factorised(self.grid, 0.15)}[
            self.position_init
        ]
        self.position = self.param("position", positions, (math.prod(self.grid), self.width))
        self.drop = Dropout(self.dropout)
        if self.text_dim is not None:
            # One product for all layers. Sampling computes it once for all decoding steps.
            self.text_key_value = Dense(
                (self.depth, 2, self.heads, self.width // self.heads),
                self.dtype,
                product=product_by_heads,
            )
        self.transformer = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            dtype=self.dtype,
            remat=self.remat,
            unroll=self.unroll,
            attention=self.attention,
        )

    def context(self, text: PyTree[Text]):
        """Keys and values of every layer [depth b l 2 h e], and the text mask [b l]."""
        embeddings, mask = (
            jax.tree.map(operator.attrgetter(part), text, is_leaf=lambda x: isinstance(x, Text))
            for part in ("embeddings", "mask")
        )
        return jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), self.text_key_value(embeddings)), mask

    def shared_context(self, text: Text):
        """`context`, gathered once for all decoding steps."""
        key_value, mask = self.context(text)
        return sharding.constrain(key_value, {1: sharding.BATCH}), mask

    def shared_params(self, params):
        """`params`, those of the decoding steps gathered once for all of them."""
        before = {name: params[name] for name in params if name == "text_key_value"}
        steps = {name: params[name] for name in params if name not in before}
        return sharding.gather_parameters(steps, self.dtype) | before

    def features(
        self,
        tokens: PyTree[Int[Array, "..."]],
        text: PyTree[Text] | None = None,
        *,
        context=None,
        valid: Bool[Array, "b s"] | None = None,
        added: Float[Array, "b s d"] | None = None,
        places: Int[np.ndarray, " s"] | None = None,
        deterministic: bool = True,
    ) -> Streams:
        """Features [b s d] of flattened `tokens` [b s] in raster order ((t·M + m)·N + n).

        A shorter clip is a prefix; tokens of another part of a clip have their own `places`. Give
        `text`, or the `context` made from it. `valid` is False for padding behind the end of a
        clip, which no position attends to. `added` is added to the embeddings. Clips and images
        pass together as {kind: tokens}, with {kind: text}, and without `valid`, `added`, `places`.
        """
        if text is not None:
            context = self.context(text)
        key_value, text_mask = context if context is not None else (None, None)
        table = sharding.replicated(self.embedding, sharding.COLUMNS)

        def embed(tokens):
            x = sharding.split_tokens(jnp.take(table, tokens, axis=0))
            x = x if added is None else x + added
            own = self.position[: tokens.shape[1]] if places is None else self.position[places]
            return self.drop(x + own, deterministic=deterministic)

        x = jax.tree.map(embed, tokens)
        return self.transformer(
            x,
            key_value=key_value,
            text_mask=text_mask,
            mask=None if valid is None else valid[:, None, None],
            deterministic=deterministic,
        )
