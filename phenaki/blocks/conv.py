"""Convolutional residual blocks and resampling."""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from jaxtyping import Array, Float

from phenaki.blocks.attention import Dense
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
        # Where the width changes MaskGIT projects the branch itself, not the input. It reads like a
        # slip, but its weights are trained so, and the baseline is MaskGIT's.
        return conv((1, 1), name="shortcut")(y) + y


class StridedConv(nn.Module):
    """`nn.Conv` over clips with SAME padding, as one of frames, without strides, over blocks.

    Strides become blocks of pixels, the kernel's frames become channels. Its gradient so has no
    dilated input, for which XLA's CPU backend has nothing but a plain loop, and no third axis.
    """

    features: int
    kernel_size: tuple[int, int, int]
    strides: tuple[int, int, int]
    use_bias: bool = True
    dtype: Any = jnp.float32
    precision: jax.lax.PrecisionLike = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b u i j d"]:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        x = x.astype(self.dtype)
        before = jax.lax.padtype_to_pads(x.shape[1:4], self.kernel_size, self.strides, "SAME")
        pads, more = [], []
        for (low, _), size, window, stride in zip(
            before, x.shape[1:4], self.kernel_size, self.strides, strict=True
        ):
            outputs, blocks = -(-size // stride), -(-window // stride)
            pads.append((low, stride * (outputs + blocks - 1) - low - size))
            more.append((0, stride * blocks - window))
        p, q, r = self.strides
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        x = rearrange(x, "b (t p) (h q) (w r) c -> b t h w (p q r c)", p=p, q=q, r=r)
        kernel = jnp.pad(kernel, (*more, (0, 0), (0, 0)))
        kernel = rearrange(kernel, "(t p) (h q) (w r) c d -> t h w (p q r c) d", p=p, q=q, r=r)
        window = len(kernel)
        frames = x.shape[1] - window + 1
        x = jnp.concatenate([x[:, i : i + frames] for i in range(window)], axis=-1)
        y = jax.lax.conv_general_dilated(
            rearrange(x, "b t h w c -> (b t) h w c"),
            rearrange(kernel, "t h w c d -> h w (t c) d"),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=self.precision,
        )
        y = rearrange(y, "(b t) h w d -> b t h w d", t=frames)
        if not self.use_bias:
            return y
        return y + self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(
            y.dtype
        )


class UpConv(nn.Module):
    """`nn.ConvTranspose` of a `time` x 3 x 3 kernel that strides over `time` frames, its outputs'.

    Each frame makes its own, so that a convolution over space will do, without a dilated input.
    """

    features: int
    time: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b u h w d"]:
        shape = (self.time, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        # A transposed convolution reads its kernel from behind.
        kernel = rearrange(kernel[::-1], "i h w c d -> 1 h w c (i d)")
        axes = ("NDHWC", "DHWIO", "NDHWC")
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype), kernel, (1, 1, 1), "SAME", dimension_numbers=axes
        )
        y = rearrange(y, "b t h w (i d) -> b (t i) h w d", i=self.time)
        return y + bias.astype(self.dtype)


class DepthwiseConv(nn.Module):
    """`nn.Conv` with a 3x3x3 kernel per channel, as sums of shifted clips, which fuse.

    Of grouped convolutions XLA's CPU backend makes a plain loop, twenty times as slow.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w d"]) -> Float[Array, "b t h w d"]:
        shape = (3, 3, 3, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        t, h, w = x.shape[1:4]
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
        y = sum(
            x[:, i : i + t, j : j + h, k : k + w] * kernel[i, j, k]
            for i, j, k in itertools.product(range(3), repeat=3)
        )
        return y + bias.astype(self.dtype)


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

    `remat` and `unroll` are those of the transformer.
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
        )
        x, _ = layers(self.expansion, self.dtype, name="layers")(x.astype(self.dtype))
        return x


def shrink(x: Float[Array, "... h w c"], stride: int) -> Float[Array, "... i j c"]:
    """Means over squares of `stride` pixels; a stride of 1 changes nothing."""
    return reduce(x, "... (h p) (w q) c -> ... h w c", "mean", p=stride, q=stride)


def enlarge(x: Float[Array, "... h w c"], stride: int) -> Float[Array, "... i j c"]:
    """Every pixel as a square of `stride` pixels."""
    return repeat(x, "... h w c -> ... (h p) (w q) c", p=stride, q=stride)
