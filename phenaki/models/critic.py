"""Token critics: which tokens of a clip were sampled (docs/paper.md#token-critic).

Not part of Phenaki. Both kinds are called with codes and text, see every position, and give one
logit per code, high for "sampled".
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phenaki.blocks.dense import Dense
from phenaki.blocks.token_transformer import TokenTransformer
from phenaki.blocks.transformer import norm
from phenaki.types import Text


class TokenCritic(TokenTransformer):
    """A transformer of its own."""

    @property
    def reads_text(self) -> bool:
        """Whether it is to be given text."""
        return self.text_dim is not None

    def setup(self):
        super().setup()
        self.logit = Dense(1, self.dtype)

    def __call__(
        self,
        tokens: Int[Array, "b s"],
        text: Text | None = None,
        *,
        context=None,
        deterministic: bool = True,
    ) -> Float[Array, "b s"]:
        """Logits of "sampled" for flattened `codes` without a mask, given `text` or its context."""
        x = self.features(tokens, text, context=context, deterministic=deterministic)
        return self.logit(x)[..., 0].astype(jnp.float32)

    def merge_params(self, params, generator):
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
        tokens: Int[Array, "b s"],
        text: Text | None = None,
        *,
        context=None,
        deterministic: bool = True,
    ) -> Float[Array, "b s"]:
        """As `TokenCritic`'s; nothing of the trunk is dropped out."""
        del deterministic
        x = self.trunk.features(tokens, text, context=context)
        x = self.hidden_norm(nn.gelu(self.hidden(x)))
        return self.logit(x)[..., 0].astype(jnp.float32)

    def merge_params(self, params, generator):
        """The parameters that `apply` needs, of the head's own and the generator's."""
        return {**params, "trunk": generator}
