"""The interface of every tokenizer: three ways through encoder, quantizer and decoder."""

from typing import ClassVar, NamedTuple

import flax.linen as nn

from phenaki.blocks.quantizer import Quantized
from phenaki.types import Codes, Video

SMALL_INIT = nn.initializers.normal(0.02)


class Reconstruction(NamedTuple):
    """A training forward: what came out, and what the quantizer did."""

    video: Video  # linear output, not clipped to [0, 1]
    quantized: Quantized


class Tokenizer(nn.Module):
    """A subclass has `quantizer`, `_embed` (pixels to vectors) and `_pixels` (vectors to pixels).

    It also has the fields `codebook` and `code_dim`, for those who count codes, `LAST`: the
    modules, as paths, that make the pixels, and `SEES`: which frames a code depends on, all pixels
    of them: those of its latent ("frame"), these and all before ("past"), or all ("clip").
    """

    LAST: ClassVar[tuple[tuple[str, ...], ...]]
    SEES: ClassVar[str]

    def __call__(self, video: Video) -> Reconstruction:
        """Encodes, quantizes with a straight-through gradient, and decodes."""
        quantized = self.quantizer(self._embed(video))
        return Reconstruction(self._pixels(quantized.vectors), quantized)

    def encode(self, video: Video) -> Codes:
        """Codes of a clip of 1 + n·patch[0] frames of the network's size; an image is one frame."""
        return self.quantizer(self._embed(video)).codes

    def decode(self, codes: Codes) -> Video:
        """Pixels of codes, about [0, 1]: 1 + (t - 1)·patch[0] frames."""
        return self._pixels(self.quantizer.lookup(codes))
