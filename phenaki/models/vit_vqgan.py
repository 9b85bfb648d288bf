"""ViT VQGAN, a per-frame baseline made of transformers (Table 3, B.1.1)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from phenaki.blocks.dense import Dense
from phenaki.blocks.quantizer import VectorQuantizer
from phenaki.blocks.transformer import Transformer
from phenaki.models.tokenizer import SMALL_INIT, Tokenizer
from phenaki.types import Video


class ViTVQGAN(Tokenizer):
    """Tokenizes each frame alone: C-ViViT without time, with one stem and one head for all frames.

    `size` (rows, columns in pixels) and `patch` (1, rows, columns) fix the position tables; `depth`
    counts layers of the encoder, and again of the decoder.
    """

    output_layers = (("patch_out",),)
    receptive_field = "frame"

    size: tuple[int, int]
    patch: tuple[int, int, int]
    width: int
    code_dim: int
    depth: int
    heads: int
    mlp_dim: int
    codebook: int
    channels: int = 3
    quantizer_type: Callable = VectorQuantizer
    dtype: Any = jnp.float32
    remat: str = "none"
    unroll: int = 1
    attention: str = "xla"

    def setup(self):
        _, rows, columns = self.patch
        table = (self.size[0] // rows * (self.size[1] // columns), self.width)
        layers = dict(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            unroll=self.unroll,
            attention=self.attention,
        )
        self.patch_in = Dense(self.width, self.dtype)
        self.encoder_position = self.param("encoder_position", SMALL_INIT, table)
        self.encoder = Transformer(**layers)
        self.code_in = Dense(self.code_dim, jnp.float32)

        self.quantizer = self.quantizer_type(self.codebook, self.code_dim)

        self.code_out = Dense(self.width, self.dtype)
        self.decoder_position = self.param("decoder_position", SMALL_INIT, table)
        self.decoder = Transformer(**layers)
        pixels = rows * columns * self.channels
        self.patch_out = Dense(pixels, jnp.float32, kernel_init=SMALL_INIT)

    def _embed(self, video: Video) -> Float[Array, "b f m n e"]:
        _, p, q = self.patch
        patches = rearrange(video, "b f (m p) (n q) c -> (b f) (m n) (p q c)", p=p, q=q)
        x = self.patch_in(patches)
        x = self.encoder(x + self.encoder_position.astype(x.dtype))
        sizes = dict(b=video.shape[0], m=video.shape[2] // p)
        return rearrange(self.code_in(x), "(b f) (m n) e -> b f m n e", **sizes)

    def _pixels(self, vectors: Float[Array, "b f m n e"]) -> Video:
        _, p, q = self.patch
        x = self.code_out(rearrange(vectors, "b f m n e -> (b f) (m n) e"))
        x = self.decoder(x + self.decoder_position.astype(x.dtype))
        sizes = dict(b=vectors.shape[0], m=vectors.shape[2], p=p, q=q)
        patches = self.patch_out(x)
        return rearrange(patches, "(b f) (m n) (p q c) -> b f (m p) (n q) c", **sizes)
