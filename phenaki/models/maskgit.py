"""MaskGIT: a bidirectional transformer that predicts masked video tokens from text (§2.2)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from phenaki.blocks import sharding
from phenaki.blocks.dense import Dense, Streams
from phenaki.blocks.token_transformer import TokenTransformer
from phenaki.blocks.transformer import norm
from phenaki.types import Text


def embed_codes(
    embedding: Float[Array, "k1 d"], codes: Float[Array, "k e"], key: Array, std: float
) -> Float[Array, "k1 d"]:
    """A new embedding table plus a random projection, of size `std`, of the tokenizer's codebook.

    Args:
        embedding: the initialised table; its last row, [MASK], stays as it is.
        codes: the codebook.
        key: of the projection.
        std: standard deviation of what is added; `config.code_init`.
    """
    # Tokens that look alike start out alike, as inputs and as predictions, which small models need
    # to learn in minutes. The paper does not mention it.
    directions = jnp.linalg.qr(jax.random.normal(key, (embedding.shape[1], codes.shape[1])))[0]
    codes = codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)
    codes = (codes - codes.mean(0)) * math.sqrt(embedding.shape[1])
    return embedding.at[: len(codes)].add(std * codes @ directions.T)


class MaskGIT(TokenTransformer):
    """Logits of masked tokens; sizes are in Table 7 and appendix B.2.3, B.3.1.

    Without `text_dim` it is unconditional. The head is MaskGIT's, tied to the embedding table
    (docs/paper.md#maskgit-head).
    """

    @property
    def mask_id(self) -> int:
        """The id of [MASK]: one past the codebook, never predicted."""
        return self.codebook

    @property
    def ids(self) -> int:
        """Input ids: the codebook's and [MASK]."""
        return self.codebook + 1

    def setup(self):
        super().setup()
        self.head = Dense(self.width, self.dtype)
        self.head_norm = norm("head_norm")
        self.head_bias = self.param("head_bias", nn.initializers.zeros_init(), (self.codebook,))

    def __call__(
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
        """Logits [b s k] over the codebook, float32, for `tokens` [b s], `mask_id` where unknown.

        Tokens are in raster order ((t·M + m)·N + n); a shorter clip is a prefix. Give `text`, or
        the `context` made from it. `valid` is False for padding behind the end of a clip. Clips and
        images pass together as {kind: tokens}, with {kind: text}, and without `valid`. `added` is
        added to the embeddings of tokens. `places` are those of `tokens` in the clip, where they
        are a part of it.
        """
        x = self.features(
            tokens, text, context=context, valid=valid, added=added, places=places,
            deterministic=deterministic,
        )  # fmt: skip
        table = self.embedding[: self.codebook].astype(self.dtype)
        table = sharding.replicated(table, sharding.COLUMNS)

        def predict(x):
            x = self.head_norm(nn.gelu(x))
            # One plain matrix product on one device, as in `Dense`.
            flat = x if sharding.is_split() else x.reshape(-1, self.width)
            flat = flat.astype(self.dtype)
            logits = jnp.matmul(flat, table.T, preferred_element_type=jnp.float32)
            return (logits + self.head_bias).reshape(*x.shape[:-1], self.codebook)

        return jax.tree.map(predict, self.head(x))
