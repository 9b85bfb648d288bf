"""Residual blocks and resampling of convolutional tokenizers."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import reduce, repeat
from jaxtyping import Array, Float

from phenaki.blocks.conv3d import DepthwiseConv
from phenaki.blocks.dense import Dense
from phenaki.blocks.transformer import REMAT, norm


def group_norm(groups: int, name: str) -> nn.GroupNorm:
    """GroupNorm over the pixels of one frame, with float32 statistics."""
    return nn.GroupNorm(groups, epsilon=1e-6, dtype=jnp.float32, name=name)


class ResidualBlock(nn.Module):
    """GroupNorm, swish and a 3x3 convolution, twice, around a shortcut (MaskGIT's VQGAN)."""

    features: int
    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "s h w c"]) -> Float[Array, "s h w d"]:
        conv = functools.partial(nn.Conv, self.features, use_bias=False, dtype=self.dtype)
        y = conv((3, 3), name="conv1")(nn.swish(group_norm(self.groups, "norm1")(x)))
        y = conv((3, 3), name="conv2")(nn.swish(group_norm(self.groups, "norm2")(y)))
        if x.shape[-1] == self.features:
            return x + y
        # Where the width changes, MaskGIT projects the branch itself instead of the input. This
        # looks like a slip, but its weights are trained with it, and the baseline is MaskGIT's.
        return conv((1, 1), name="shortcut")(y) + y


class DepthwiseBlock(nn.Module):
    """A depthwise 3x3x3 convolution, LayerNorm and an MLP over channels, added to the input."""

    expansion: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w d"]):
        width = x.shape[-1]
        y = norm("norm")(DepthwiseConv(self.dtype, name="depthwise")(x))
        y = nn.gelu(Dense(self.expansion * width, self.dtype, name="wi")(y))
        return x + Dense(width, self.dtype, name="wo")(y), None


class DepthwiseStack(nn.Module):
    """`depth` depthwise blocks of the input's width; parameters are stacked over them.

    `remat` and `unroll` are those of `Transformer`.
    """

    depth: int
    expansion: int
    dtype: Any = jnp.float32
    remat: str = "none"
    unroll: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w d"]) -> Float[Array, "b t h w d"]:
        if not self.depth:
            return x
        block = DepthwiseBlock
        if self.remat != "none":
            block = nn.remat(block, policy=REMAT[self.remat], prevent_cse=False)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=min(self.unroll, self.depth),
            check_constancy_invariants=False,  # it would trace a layer twice
        )
        x, _ = layers(self.expansion, self.dtype, name="layers")(x.astype(self.dtype))
        return x


def shrink(x: Float[Array, "... h w c"], stride: int) -> Float[Array, "... i j c"]:
    """Means over squares of `stride` pixels; a stride of 1 changes nothing."""
    return reduce(x, "... (h p) (w q) c -> ... h w c", "mean", p=stride, q=stride)


def enlarge(x: Float[Array, "... h w c"], stride: int) -> Float[Array, "... i j c"]:
    """Every pixel as a square of `stride` pixels."""
    return repeat(x, "... h w c -> ... (h p) (w q) c", p=stride, q=stride)
