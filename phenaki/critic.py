"""Token critics: which codes of a clip were sampled, and which are the data's (PAPER_FACTS 6).

Not part of Phenaki. Both kinds are called with codes and text, see every position, and give one
logit per code, high for "sampled".
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phenaki.blocks.attention import Dense
from phenaki.blocks.transformer import Transformer, norm
from phenaki.types import Text


class TokenCritic(nn.Module):
    """A transformer of its own; `grid` is the (t, m, n) of the longest clip.

    `text_dim` is the width of the text embeddings; None builds one that sees no text.
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
    dtype: Any = jnp.float32
    remat: str = "none"
    unroll: int = 1

    @property
    def reads_text(self) -> bool:
        """Whether it is to be given text."""
        return self.text_dim is not None

    def setup(self):
        small = nn.initializers.truncated_normal(0.02)
        self.embedding = self.param("embedding", small, (self.codebook, self.width))
        self.position = self.param("position", small, (math.prod(self.grid), self.width))
        self.drop = nn.Dropout(self.dropout)
        if self.text_dim is not None:
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
        )
        self.logit = Dense(1, self.dtype)

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
        deterministic: bool = True,
    ) -> Float[Array, "b s"]:
        """Logits of "sampled" for flattened `codes` without a mask, given `text` or its context."""
        if text is not None:
            context = self.context(text)
        key_value, text_mask = context if context is not None else (None, None)
        x = jnp.take(self.embedding, codes, axis=0) + self.position[: codes.shape[1]]
        x = self.transformer(
            self.drop(x, deterministic=deterministic),
            key_value=key_value,
            text_mask=text_mask,
            deterministic=deterministic,
        )
        return self.logit(x)[..., 0].astype(jnp.float32)

    def whole(self, params, generator):
        """The parameters that `apply` needs, of those that are trained and the generator's."""
        del generator
        return params


class SelfCritic(nn.Module):
    """A head on the features of the frozen generator, which is `trunk`."""

    trunk: nn.Module  # has features(codes, text, context=) and context(text)
    width: int
    reads_text: bool = True
    dtype: Any = jnp.float32

    def setup(self):
        self.hidden = Dense(self.width, self.dtype)
        self.hidden_norm = norm("hidden_norm")
        self.logit = Dense(1, self.dtype)

    def context(self, text: Text):
        """As the generator's."""
        return self.trunk.context(text)

    def __call__(
        self,
        codes: Int[Array, "b s"],
        text: Text | None = None,
        *,
        context=None,
        deterministic: bool = True,
    ) -> Float[Array, "b s"]:
        """As `TokenCritic`'s; nothing of the trunk is dropped out."""
        del deterministic
        x = self.trunk.features(codes, text, context=context)
        x = self.hidden_norm(nn.gelu(self.hidden(x)))
        return self.logit(x)[..., 0].astype(jnp.float32)

    def whole(self, params, generator):
        """The parameters that `apply` needs, of the head's own and the generator's."""
        return {**params, "trunk": generator}
