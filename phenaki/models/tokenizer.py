"""The interface of every tokenizer: three ways through encoder, quantizer and decoder."""

from typing import ClassVar, NamedTuple

import flax.linen as nn

from phenaki.blocks.quantizer import Quantized
from phenaki.types import Tokens, Video

SMALL_INIT = nn.initializers.normal(0.02)


class Reconstruction(NamedTuple):
    """A training forward: what came out, and what the quantizer did."""

    video: Video  # linear output, not clipped to [0, 1]
    quantized: Quantized


class Tokenizer(nn.Module):
    """A subclass has `quantizer`, `_embed` (pixels to vectors) and `_pixels` (vectors to pixels).

    It also has the fields `codebook` and `code_dim`. `output_layers` are the paths of the modules
    that make the pixels. `receptive_field` says which frames a token depends on: those of its
    latent ("frame"), these and all before ("past"), or all ("clip").
    """

    output_layers: ClassVar[tuple[tuple[str, ...], ...]]
    receptive_field: ClassVar[str]

    def __call__(self, video: Video) -> Reconstruction:
        """Encodes, quantizes with a straight-through gradient, and decodes."""
        quantized = self.quantizer(self._embed(video))
        return Reconstruction(self._pixels(quantized.vectors), quantized)

    def encode(self, video: Video) -> Tokens:
        """Tokens of a clip of 1 + n·patch[0] frames of the network's size; an image has one."""
        return self.quantizer(self._embed(video)).tokens

    def decode(self, tokens: Tokens) -> Video:
        """Pixels of tokens, about [0, 1]: 1 + (t - 1)·patch[0] frames."""
        return self._pixels(self.quantizer.lookup(tokens))
