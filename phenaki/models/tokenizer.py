"""The interface of every tokenizer network: encode, decode, and the two together for training."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import flax.linen as nn

from phenaki.blocks.quantizer import Quantized
from phenaki.types import Tokens, Video

SMALL_INIT = nn.initializers.normal(0.02)


class Reconstruction(NamedTuple):
    """Result of a forward pass in training."""

    video: Video  # linear output, not clipped to [0, 1]
    quantized: Quantized


class Tokenizer(nn.Module):
    """Base class of tokenizers.

    A subclass has the fields `patch`, `codebook` and `code_dim`, the submodule `quantizer`, and the
    methods `_embed` (pixels to vectors) and `_pixels` (vectors to pixels).
    """

    # Paths of the modules that make the pixels, for VQGAN's adaptive weight of the GAN loss.
    output_layers: ClassVar[tuple[tuple[str, ...], ...]]
    # Which frames a token depends on: those of its latent, these and all before, or the whole clip.
    receptive_field: ClassVar[Literal["frame", "past", "clip"]]

    if TYPE_CHECKING:
        codebook: int
        code_dim: int
        quantizer: nn.Module

        # Flax annotates the result as a union of arrays and tuples, of which no caller can use
        # `.video` or `.reshape`.
        def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any: ...

    def __call__(self, video: Video) -> Reconstruction:
        """Encodes, quantizes with a straight-through gradient, and decodes."""
        quantized = self.quantizer(self._embed(video))
        return Reconstruction(self._pixels(quantized.vectors), quantized)

    def encode(self, video: Video) -> Tokens:
        """Tokens of a clip of 1 + n·patch[0] frames of the network's size; an image has one."""
        return self.quantizer(self._embed(video)).tokens

    def decode(self, tokens: Tokens) -> Video:
        """Pixels of tokens, 1 + (t - 1)·patch[0] frames; values may leave [0, 1] slightly."""
        return self._pixels(self.quantizer.lookup(tokens))
