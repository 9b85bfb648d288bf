"""Token critics: networks that tell sampled tokens from the data's (docs/paper.md#token-critic).

Not part of Phenaki. Both kinds read all tokens of a clip and its text, and give one logit per
token, high for "sampled".
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phenaki.blocks import sharding
from phenaki.blocks.dense import Dense
from phenaki.blocks.token_transformer import TokenTransformer
from phenaki.blocks.transformer import norm
from phenaki.types import Text


class TokenCritic(TokenTransformer):
    """A transformer with parameters of its own."""

    @property
    def reads_text(self) -> bool:
        """Whether `__call__` needs text."""
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
        """Logits of "sampled" for flattened, unmasked `tokens`, given `text` or its `context`."""
        x = self.features(tokens, text, context=context, deterministic=deterministic)
        return self.logit(x)[..., 0].astype(jnp.float32)

    def merge_params(self, params, generator):
        """Parameters for `apply` from the critic's own and the generator's, which it ignores."""
        del generator
        return params


class SelfCritic(nn.Module):
    """A head on the features of the frozen generator, which is `trunk`."""

    trunk: nn.Module  # has features(tokens, text, context=) and context(text)
    width: int
    reads_text: bool = True
    dtype: Any = jnp.float32

    def setup(self):
        self.hidden = Dense(self.width, self.dtype)
        self.hidden_norm = norm("hidden_norm")
        self.logit = Dense(1, self.dtype)

    def context(self, text: Text):
        """Keys and values of the text for the generator's layers, see `TokenTransformer`."""
        return self.trunk.context(text)

    def shared_context(self, text: Text):
        """See `TokenTransformer`."""
        return self.trunk.shared_context(text)

    def shared_params(self, params):
        """See `TokenTransformer`."""
        return sharding.gather_parameters(params, self.dtype)

    def __call__(
        self,
        tokens: Int[Array, "b s"],
        text: Text | None = None,
        *,
        context=None,
        deterministic: bool = True,
    ) -> Float[Array, "b s"]:
        """Logits as `TokenCritic`'s; the trunk is always deterministic."""
        del deterministic
        x = self.trunk.features(tokens, text, context=context)
        x = self.hidden_norm(nn.gelu(self.hidden(x)))
        return self.logit(x)[..., 0].astype(jnp.float32)

    def merge_params(self, params, generator):
        """Parameters for `apply` from the head's own and the generator's."""
        return {**params, "trunk": generator}
