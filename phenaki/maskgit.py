"""MaskGIT: a bidirectional transformer that predicts masked video codes from text (§2.2)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phenaki.blocks import layout
from phenaki.blocks.attention import Dense
from phenaki.blocks.transformer import Transformer, norm
from phenaki.types import Text


def factorised(grid: tuple[int, int, int], std: float):
    """Initialiser of a [t·m·n, d] position table as a sum of one table per axis.

    Neighbours start out similar. Tables of small models need it to learn motion in reasonable time;
    the paper does not mention it. Only the start is factorised: every entry is learned.
    """

    def init(key, shape, dtype=jnp.float32):
        table = nn.initializers.normal(std)(key, (sum(grid), shape[-1]), dtype)
        t, m, n = jnp.split(table, (grid[0], grid[0] + grid[1]))
        return (t[:, None, None] + m[:, None] + n).reshape(shape)

    return init


def embed_codes(
    embedding: Float[Array, "k1 d"], codes: Float[Array, "k e"], key: Array, std: float
) -> Float[Array, "k1 d"]:
    """A fresh embedding table plus a random projection, of size `std`, of the tokenizer's codes.

    Codes that look alike start out alike, as input and as prediction, which small models need to
    learn in minutes; the paper does not mention it.
    """
    directions = jnp.linalg.qr(jax.random.normal(key, (embedding.shape[1], codes.shape[1])))[0]
    codes = codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)
    codes = (codes - codes.mean(0)) * math.sqrt(embedding.shape[1])
    return embedding.at[: len(codes)].add(std * codes @ directions.T)


class MaskGIT(nn.Module):
    """Numbers of Table 7 and appendix B.2.3, B.3.1; `grid` is the (t, m, n) of the longest clip.

    `text_dim` is the width of the text embeddings, from which every layer's keys and values come
    directly (PAPER_FACTS A2); None builds the unconditional network.
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
    def mask_id(self) -> int:
        """The id of [MASK]: one past the codes, never predicted."""
        return self.codebook

    def setup(self):
        small = nn.initializers.truncated_normal(0.02)
        self.embedding = self.param("embedding", small, (self.codebook + 1, self.width))
        positions = {"normal": small, "factorised": factorised(self.grid, 0.15)}[self.position_init]
        self.position = self.param("position", positions, (math.prod(self.grid), self.width))
        self.drop = nn.Dropout(self.dropout)
        if self.text_dim is not None:
            # One product for all layers; while sampling it is computed once for all steps.
            self.text_key_value = Dense(
                (self.depth, 2, self.heads, self.width // self.heads), self.dtype
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
        self.head = Dense(self.width, self.dtype)
        self.head_norm = norm("head_norm")
        self.head_bias = self.param("head_bias", nn.initializers.zeros_init(), (self.codebook,))

    def context(self, text: Text):
        """Keys and values of every layer [depth b l 2 h e], and the text mask [b l]."""
        key_value = self.text_key_value(text.embeddings)
        return jnp.moveaxis(key_value, 2, 0), text.mask

    def __call__(
        self,
        codes: Int[Array, "b s"],
        text: Text | None = None,
        *,
        context=None,
        valid: Bool[Array, "b s"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "b s k"]:
        """Logits over the codes, float32, for flattened `codes` with `mask_id` where unknown.

        Codes are in raster order ((t·M + m)·N + n); a shorter clip is a prefix. Give `text`, or the
        `context` made from it. `valid` hides padding behind the end of a clip.
        """
        x = self.features(codes, text, context=context, valid=valid, deterministic=deterministic)
        x = self.head_norm(nn.gelu(self.head(x)))
        table = layout.whole(self.embedding[: self.codebook].astype(self.dtype))
        # As in Dense: one plain matrix product on one device.
        flat = x if layout.is_split() else x.reshape(-1, self.width)
        logits = jnp.matmul(flat.astype(self.dtype), table.T, preferred_element_type=jnp.float32)
        return (logits + self.head_bias).reshape(*x.shape[:-1], self.codebook)

    def features(
        self,
        codes: Int[Array, "b s"],
        text: Text | None = None,
        *,
        context=None,
        valid: Bool[Array, "b s"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "b s d"]:
        """What the logits are read from; arguments as for them."""
        if text is not None:
            context = self.context(text)
        key_value, text_mask = context if context is not None else (None, None)
        length = codes.shape[1]
        table = layout.whole(self.embedding)
        x = layout.split_tokens(jnp.take(table, codes, axis=0)) + self.position[:length]
        x = self.drop(x, deterministic=deterministic)
        return self.transformer(
            x,
            key_value=key_value,
            text_mask=text_mask,
            mask=None if valid is None else valid[:, None, None],
            deterministic=deterministic,
        )
