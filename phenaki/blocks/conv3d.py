"""3-D convolutions of clips, equal to Flax's modules but with gradients that are fast on CPUs.

XLA's CPU backend has fast kernels for 2-D convolutions without dilation and groups; all others run
as a plain loop. Parameters are those of the Flax modules that they replace.
"""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float


class StridedConv(nn.Module):
    """`nn.Conv` over clips with SAME padding, computed as a 2-D convolution without strides."""

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
        # Blocks of stride x stride pixels become channels: the convolution over blocks has stride
        # 1, so that its gradient has no dilated input. Input and kernel are padded to full blocks.
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
        # The kernel's frames become channels, too, so that there is no third axis.
        window = len(kernel)
        frames = x.shape[1] - window + 1
        x = jnp.concatenate([x[:, i : i + frames] for i in range(window)], axis=-1)
        y = _over_frames(x, rearrange(kernel, "t h w c d -> h w (t c) d"), "VALID", self.precision)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + bias.astype(self.dtype)


class UpConv(nn.Module):
    """`nn.ConvTranspose` with a `time` x 3 x 3 kernel and a stride of `time` frames.

    Every input frame makes `time` output frames, which no other frame adds to. A 2-D convolution
    to `time` times as many channels computes them.
    """

    features: int
    time: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b u h w d"]:
        shape = (self.time, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        # A transposed convolution applies its kernel in reverse order.
        kernel = rearrange(kernel[::-1], "i h w c d -> h w c (i d)")
        y = _over_frames(x.astype(self.dtype), kernel, "SAME")
        y = rearrange(y, "b t h w (i d) -> b (t i) h w d", i=self.time)
        return y + bias.astype(self.dtype)


class DepthwiseConv(nn.Module):
    """`nn.Conv` with a 3x3x3 kernel per channel (`feature_group_count` = channels)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w d"]) -> Float[Array, "b t h w d"]:
        shape = (3, 3, 3, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        t, h, w = x.shape[1:4]
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
        # A sum of shifted clips, which XLA fuses. A grouped convolution takes twenty times as long
        # on CPUs.
        y = sum(
            x[:, i : i + t, j : j + h, k : k + w] * kernel[i, j, k]
            for i, j, k in itertools.product(range(3), repeat=3)
        )
        return y + bias.astype(self.dtype)


def _over_frames(x, kernel, padding, precision=None):
    """One 2-D convolution [h w c d] applied to every frame of [b t h w c]."""
    y = jax.lax.conv_general_dilated(
        rearrange(x, "b t h w c -> (b t) h w c"),
        kernel,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
    return rearrange(y, "(b t) h w d -> b t h w d", t=x.shape[1])
