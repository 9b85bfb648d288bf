"""Pre-LayerNorm transformer with optional cross-attention, scanned over its layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from phenaki.blocks import flash, sharding
from phenaki.blocks.attention import CrossAttention, SelfAttention
from phenaki.blocks.dense import SAVE_PRODUCT, Dense, Streams
from phenaki.blocks.dropout import Dropout

# `config.remat` -> the policy of `jax.checkpoint`: which values of the forward pass are saved.
REMAT = {
    "none": None,
    # Attention kernels save their outputs, because they would be the most expensive to recompute.
    "full": jax.checkpoint_policies.save_only_these_names(flash.SAVE_FOR_BACKWARD),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Attention's outputs and matrix products, which are most of the work.
    "products": jax.checkpoint_policies.save_only_these_names(
        flash.SAVE_FOR_BACKWARD, SAVE_PRODUCT
    ),
}


class Block(nn.Module):
    """One layer: self-attention, cross-attention and MLP, each added to the residual stream.

    `x` is [b s d], or several such streams. Without `key_value` [b l 2 h e] there is no
    cross-attention. `text_mask` is [b l], `mask` broadcasts to [b h s s]. The order is that of Muse
    (docs/paper.md#block-order).
    """

    heads: int
    mlp_dim: int
    dropout: float
    attention_dropout: float
    dtype: Any
    deterministic: bool
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: Streams, key_value, text_mask, mask):
        x = jax.tree.map(sharding.split_tokens, x)
        drop = Dropout(self.dropout, deterministic=self.deterministic)

        def add(x, y):
            return jax.tree.map(lambda x, y: x + drop(y), x, y)

        common = dict(
            heads=self.heads,
            dropout=self.attention_dropout,
            dtype=self.dtype,
            attention=self.attention,
        )
        y = jax.tree.map(norm("norm_attention"), x)
        attend = SelfAttention(**common, name="attention")
        x = add(x, attend(y, mask, self.deterministic))
        if key_value is not None:
            y = jax.tree.map(norm("norm_cross"), x)
            cross = CrossAttention(**common, name="cross")
            x = add(x, cross(y, key_value, text_mask, self.deterministic))
        y = jax.tree.map(norm("norm_mlp"), x)
        y = jax.tree.map(nn.gelu, Dense(self.mlp_dim, self.dtype, name="wi")(y))
        width = jax.tree.leaves(x)[0].shape[-1]
        x = add(x, Dense(width, self.dtype, name="wo")(y))
        return jax.tree.map(sharding.split_tokens, x), None


def norm(name: str) -> nn.LayerNorm:
    """LayerNorm with float32 statistics."""
    return nn.LayerNorm(epsilon=1e-6, dtype=jnp.float32, name=name)


class Transformer(nn.Module):
    """`depth` blocks and a final LayerNorm. Parameters are stacked over layers (leading axis).

    `remat` is a key of `REMAT`: "none" saves everything for the backward pass, "full" only the
    outputs of attention kernels, "dots" matrix products, "products" both. `unroll` layers at a time
    trade compile time for speed. `attention` is a key of `attention_impl.CHOICES`.
    """

    depth: int
    heads: int
    mlp_dim: int
    dropout: float = 0.0
    attention_dropout: float = 0.0
    causal: bool = False
    dtype: Any = jnp.float32
    remat: str = "none"
    unroll: int = 1
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: Streams,
        *,
        key_value=None,
        text_mask=None,
        mask=None,
        deterministic: bool = True,
    ) -> Streams:
        """Features of positions `x` [b s d], with a residual stream in `dtype`, float32 results.

        `key_value` [depth b l 2 h e] and `text_mask` [b l] come from the text, or are None. Several
        streams pass each layer together; they have no `mask`, and are not causal.
        """
        if self.causal:
            length = x.shape[1]
            mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
        block = Block
        # Inside a scan XLA cannot merge the recomputation with the forward pass, so that the
        # barriers of `prevent_cse` would only cost time.
        if self.remat != "none":
            block = nn.remat(Block, policy=REMAT[self.remat], prevent_cse=False)
        # One layer is compiled, not `depth`; its parameters and `key_value` have a layer axis.
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=min(self.unroll, self.depth),
            check_constancy_invariants=False,  # it would trace a layer twice
        )
        stack = layers(
            self.heads,
            self.mlp_dim,
            self.dropout,
            self.attention_dropout,
            self.dtype,
            deterministic,
            self.attention,
            name="layers",
        )
        x = jax.tree.map(lambda x: x.astype(self.dtype), x)
        x, _ = stack(x, key_value, text_mask, mask)
        return jax.tree.map(norm("norm"), x)
