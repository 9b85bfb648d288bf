"""3-D convolutional VQGAN with a learned first frame, as LAION's reproduction describes it."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from phenaki.blocks.conv import DepthwiseStack, enlarge
from phenaki.blocks.conv3d import StridedConv, UpConv
from phenaki.blocks.quantizer import VectorQuantizer
from phenaki.models.tokenizer import SMALL_INIT, Tokenizer
from phenaki.types import Video


class Conv3DVQGAN(Tokenizer):
    """Tokenizes a clip of any 1 + n·patch[0] frames; learned frames complete the group of frame 0.

    `strides` between levels must multiply to the rows and columns of `patch`; `size` (rows, columns
    in pixels) is that of the learned frames. The network is not causal: the blocks mix
    `sum(blocks)` latents to either side, so the tokens of an image differ from those of frame 0 in
    a clip that starts with it. C-ViViT's are equal.
    """

    # LAION's description gives: f8 and t2, (10 + 1)x128x128 pixels to (5 + 1)x16x16 tokens; the
    # learned frame and frame 0 merge into latent 0, so that an image is one latent; 8 bottleneck
    # blocks of width 512 in encoder and decoder; 19.88M + 23.36M + 0.13M parameters.
    # Inferred, as the simplest layers with those counts: depthwise blocks; `widths` of the levels
    # and `blocks` at each; the first resampling, between levels 0 and 1, is the one over time, in
    # groups of `patch[0]` frames that do not overlap; 3x3 convolutions in the encoder and 3x3x3 in
    # the decoder; a GELU after each.

    output_layers = (("decoder", "out"),)
    receptive_field = "clip"

    size: tuple[int, int]
    patch: tuple[int, int, int]
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int
    code_dim: int
    codebook: int
    channels: int = 3
    quantizer_type: Callable = VectorQuantizer
    dtype: Any = jnp.float32
    remat: str = "none"
    unroll: int = 1

    def setup(self):
        shape = dict(
            time=self.patch[0],
            widths=self.widths,
            strides=self.strides,
            blocks=self.blocks,
            expansion=self.expansion,
            dtype=self.dtype,
            remat=self.remat,
            unroll=self.unroll,
        )
        self.encoder = ClipEncoder(self.code_dim, **shape, size=self.size)
        self.quantizer = self.quantizer_type(self.codebook, self.code_dim)
        self.decoder = ClipDecoder(self.channels, **shape)

    def _embed(self, video: Video) -> Float[Array, "b t m n e"]:
        return self.encoder(video)

    def _pixels(self, vectors: Float[Array, "b t m n e"]) -> Video:
        return self.decoder(vectors)


class _ClipNetwork(nn.Module):
    """Fields and layers that encoder and decoder have in common."""

    features: int  # of the output
    time: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int
    dtype: Any
    remat: str
    unroll: int

    def level(self, x, level):
        """The blocks of one level."""
        common = (self.expansion, self.dtype, self.remat, self.unroll)
        return DepthwiseStack(self.blocks[level], *common, name=f"level{level}")(x)


class ClipEncoder(_ClipNetwork):
    """Clips [b f h w c] to vectors [b t m n e], t = 1 + (f - 1) / time."""

    size: tuple[int, int]

    @nn.compact
    def __call__(self, video: Video) -> Float[Array, "b t m n e"]:
        shape = (self.time - 1, *self.size, video.shape[-1])
        learned = self.param("learned_frames", SMALL_INIT, shape)
        learned = jnp.broadcast_to(learned, (video.shape[0], *shape))
        x = jnp.concatenate([learned, video], axis=1)
        x = nn.gelu(nn.Conv(self.widths[0], (1, 3, 3), dtype=self.dtype, name="in")(x))
        x = self.level(x, 0)
        for level, (width, stride) in enumerate(
            zip(self.widths[1:], self.strides, strict=True), start=1
        ):
            time = self.time if level == 1 else 1
            strides = (time, stride, stride)
            down = StridedConv(width, (time, 3, 3), strides, dtype=self.dtype, name=f"down{level}")
            x = self.level(nn.gelu(down(x)), level)
        return nn.Conv(self.features, (1, 1, 1), dtype=jnp.float32, name="out")(x)


class ClipDecoder(_ClipNetwork):
    """Vectors [b t m n e] to clips [b f h w c], without the frames of the learned ones."""

    @nn.compact
    def __call__(self, x: Float[Array, "b t m n e"]) -> Video:
        x = nn.Conv(self.widths[-1], (1, 1, 1), dtype=self.dtype, name="in")(x)
        for level in reversed(range(1, len(self.widths))):
            x = enlarge(self.level(x, level), self.strides[level - 1])
            width, how = self.widths[level - 1], dict(dtype=self.dtype, name=f"up{level}")
            up = UpConv(width, self.time, **how) if level == 1 else nn.Conv(width, (3,) * 3, **how)
            x = nn.gelu(up(x))
        x = self.level(x, 0)
        x = nn.Conv(self.features, (1, 3, 3), dtype=jnp.float32, name="out")(x)
        return x[:, self.time - 1 :]
