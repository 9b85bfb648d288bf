"""C-ViViT: a video tokenizer that is causal in time and takes images as one-frame clips (§2.1)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from phenaki.blocks.dense import Dense
from phenaki.blocks.quantizer import VectorQuantizer
from phenaki.blocks.transformer import Transformer
from phenaki.errors import UserError
from phenaki.models.tokenizer import SMALL_INIT, Tokenizer
from phenaki.types import Video


class CViViT(Tokenizer):
    """Encoder, quantizer and mirrored decoder for any 1 + n·patch[0] frames up to `frames`.

    Encoder and decoder are causal: a prefix of a clip has the prefix of its tokens, and a prefix of
    the tokens decodes to the prefix of the clip.

    Sizes are in Table 6 and appendix B.1, B.2. `frames`, `size` (rows, columns in pixels) and
    `patch` (frames, rows, columns) fix the position tables; `space_depth` and `time_depth` count
    layers of the encoder, and again of the decoder.
    """

    output_layers = (("first_out",), ("rest_out",))
    receptive_field = "past"

    frames: int
    size: tuple[int, int]
    patch: tuple[int, int, int]
    width: int
    code_dim: int
    space_depth: int
    time_depth: int
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
        time, rows, columns = self.patch
        grid = (self.size[0] // rows) * (self.size[1] // columns)
        length = 1 + (self.frames - 1) // time
        common = dict(
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            remat=self.remat,
            unroll=self.unroll,
            attention=self.attention,
        )
        pixels = rows * columns * self.channels

        self.first_in = Dense(self.width, self.dtype)
        self.rest_in = Dense(self.width, self.dtype)
        self.encoder_space_position = self.param(
            "encoder_space_position", SMALL_INIT, (grid, self.width)
        )
        self.encoder_space = Transformer(self.space_depth, **common)
        self.encoder_time_position = self.param(
            "encoder_time_position", SMALL_INIT, (length, self.width)
        )
        self.encoder_time = Transformer(self.time_depth, causal=True, **common)
        self.code_in = Dense(self.code_dim, jnp.float32)

        self.quantizer = self.quantizer_type(self.codebook, self.code_dim)

        self.code_out = Dense(self.width, self.dtype)
        self.decoder_time_position = self.param(
            "decoder_time_position", SMALL_INIT, (length, self.width)
        )
        self.decoder_time = Transformer(self.time_depth, causal=True, **common)
        self.decoder_space_position = self.param(
            "decoder_space_position", SMALL_INIT, (grid, self.width)
        )
        self.decoder_space = Transformer(self.space_depth, **common)
        # Small initial weights, so that the first steps need not unlearn noise.
        self.first_out = Dense(pixels, jnp.float32, kernel_init=SMALL_INIT)
        self.rest_out = Dense(time * pixels, jnp.float32, kernel_init=SMALL_INIT)

    def _embed(self, video: Video) -> Float[Array, "b t m n e"]:
        time, rows, columns = self.patch
        self._check_frames(video.shape[1])
        first = rearrange(video[:, :1], "b 1 (m p) (n q) c -> b 1 (m n) (p q c)", p=rows, q=columns)
        x = self.first_in(first)
        if video.shape[1] > 1:  # an image has no tubelets to embed
            rest = rearrange(
                video[:, 1:],
                "b (t s) (m p) (n q) c -> b t (m n) (s p q c)",
                s=time,
                p=rows,
                q=columns,
            )
            x = jnp.concatenate([x, self.rest_in(rest)], axis=1)
        x = self._over_space(x, self.encoder_space_position, self.encoder_space)
        x = self._over_time(x, self.encoder_time_position, self.encoder_time)
        z = self.code_in(x)
        return rearrange(z, "b t (m n) e -> b t m n e", m=video.shape[2] // rows)

    def _pixels(self, vectors: Float[Array, "b t m n e"]) -> Video:
        time, rows, columns = self.patch
        self._check_frames(1 + (vectors.shape[1] - 1) * time)
        m = vectors.shape[2]
        x = self.code_out(rearrange(vectors, "b t m n e -> b t (m n) e"))
        x = self._over_time(x, self.decoder_time_position, self.decoder_time)
        x = self._over_space(x, self.decoder_space_position, self.decoder_space)
        sizes = dict(m=m, p=rows, q=columns)
        first = self.first_out(x[:, :1])
        video = rearrange(first, "b 1 (m n) (p q c) -> b 1 (m p) (n q) c", **sizes)
        if x.shape[1] == 1:
            return video
        rest = self.rest_out(x[:, 1:])
        rest = rearrange(rest, "b t (m n) (s p q c) -> b (t s) (m p) (n q) c", s=time, **sizes)
        return jnp.concatenate([video, rest], axis=1)

    def _check_frames(self, frames: int) -> None:
        if frames > self.frames:  # a table of one position over time would broadcast
            raise UserError(
                f"clips of {frames} frames: this tokenizer was trained on at most {self.frames} "
                "(config.video.frames)."
            )

    def _over_space(self, x, position, transformer):
        b = x.shape[0]
        x = transformer(rearrange(x + position.astype(x.dtype), "b t s d -> (b t) s d"))
        return rearrange(x, "(b t) s d -> b t s d", b=b)

    def _over_time(self, x, position, transformer):
        b, t = x.shape[:2]
        x = transformer(rearrange(x + position[:t, None].astype(x.dtype), "b t s d -> (b s) t d"))
        return rearrange(x, "(b s) t d -> b t s d", b=b)
