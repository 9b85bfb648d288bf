"""Convolutional VQGAN with MaskGIT's layers, a per-frame baseline (Table 3, B.1.1)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from phenaki.blocks.conv import ResidualBlock, enlarge, group_norm, shrink
from phenaki.blocks.quantizer import VectorQuantizer
from phenaki.blocks.transformer import REMAT
from phenaki.models.tokenizer import Tokenizer
from phenaki.types import Video


class ConvVQGAN(Tokenizer):
    """Tokenizes each frame alone with residual blocks at levels of falling resolution.

    Level i has `filters`·`multipliers[i]` channels and `blocks` residual blocks; encoder and
    decoder have `blocks` more in the middle. Between levels i and i + 1 rows and columns shrink by
    `strides[i]`: by means in the encoder, by repetition and a 3x3 convolution in the decoder.
    `strides` must multiply to the rows and columns of `patch`, whose frames are 1.

    The paper's five levels would make 8x8 tokens per frame, but its Table 3 counts 16x16. Its
    preset therefore has a last stride of 1 and keeps the convolution there
    (docs/paper.md#conv-baseline). The codebook is that of C-ViViT, normalised codes of `code_dim`
    values, so that only the networks differ (docs/paper.md#baseline-codes).
    """

    output_layers = (("decoder", "out"),)
    receptive_field = "frame"

    patch: tuple[int, int, int]
    filters: int
    multipliers: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: int
    groups: int
    code_dim: int
    codebook: int
    channels: int = 3
    quantizer_type: Callable = VectorQuantizer
    dtype: Any = jnp.float32
    remat: str = "none"

    def setup(self):
        shape = dict(
            widths=tuple(self.filters * multiplier for multiplier in self.multipliers),
            strides=self.strides,
            blocks=self.blocks,
            groups=self.groups,
            dtype=self.dtype,
            remat=self.remat,
        )
        self.encoder = FrameEncoder(self.code_dim, **shape)
        self.quantizer = self.quantizer_type(self.codebook, self.code_dim)
        self.decoder = FrameDecoder(self.channels, **shape)

    def _embed(self, video: Video) -> Float[Array, "b f m n e"]:
        z = self.encoder(rearrange(video, "b f h w c -> (b f) h w c"))
        return rearrange(z, "(b f) m n e -> b f m n e", b=video.shape[0])

    def _pixels(self, vectors: Float[Array, "b f m n e"]) -> Video:
        frames = self.decoder(rearrange(vectors, "b f m n e -> (b f) m n e"))
        return rearrange(frames, "(b f) h w c -> b f h w c", b=vectors.shape[0])


class _FrameNetwork(nn.Module):
    """Fields and layers that encoder and decoder have in common."""

    features: int  # of the output
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: int
    groups: int
    dtype: Any
    remat: str

    def residual(self, x, width, name):
        """`blocks` residual blocks of `width` channels."""
        block = ResidualBlock
        if self.remat != "none":
            block = nn.remat(block, policy=REMAT[self.remat])
        for number in range(self.blocks):
            x = block(width, self.groups, self.dtype, name=f"{name}_{number}")(x)
        return x

    def last(self, x, kernel):
        """The output layer, in float32 as quantizer and losses are."""
        x = nn.swish(group_norm(self.groups, "norm")(x))
        return nn.Conv(self.features, kernel, dtype=jnp.float32, name="out")(x)


class FrameEncoder(_FrameNetwork):
    """Frames [s h w c] to vectors [s m n e]."""

    @nn.compact
    def __call__(self, x: Float[Array, "s h w c"]) -> Float[Array, "s m n e"]:
        x = nn.Conv(self.widths[0], (3, 3), dtype=self.dtype, name="in")(x)
        for level, (width, stride) in enumerate(zip(self.widths, (*self.strides, 1), strict=True)):
            x = shrink(self.residual(x, width, f"level{level}"), stride)
        return self.last(self.residual(x, self.widths[-1], "middle"), (1, 1))


class FrameDecoder(_FrameNetwork):
    """Vectors [s m n e] to frames [s h w c]."""

    @nn.compact
    def __call__(self, x: Float[Array, "s m n e"]) -> Float[Array, "s h w c"]:
        x = nn.Conv(self.widths[-1], (3, 3), dtype=self.dtype, name="in")(x)
        x = self.residual(x, self.widths[-1], "middle")
        for level, width in reversed(list(enumerate(self.widths))):
            x = self.residual(x, width, f"level{level}")
            if level:
                x = enlarge(x, self.strides[level - 1])
                x = nn.Conv(width, (3, 3), dtype=self.dtype, name=f"up{level}")(x)
        return self.last(x, (3, 3))
