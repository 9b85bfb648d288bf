"""Reconstruction by any trained tokenizer (Table 3), on all devices of this host."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from phenaki.evaluation import devices
from phenaki.io import checkpoint
from phenaki.io.paths import PathLike
from phenaki.models import factory
from phenaki.types import VideoSpec


class FrozenTokenizer:
    """The tokenizer of a run or bundle, or of a whole model.

    Attributes:
        spec: clip and patch sizes.
        codebook: number of codes.
        fingerprint: changes with any parameter or size.
        networks: the network by its name, "tokenizer".
    """

    def __init__(self, network: Any, params: Any, spec: VideoSpec, fingerprint: str, rows: int = 4):
        """`rows` clips per device are reconstructed at a time."""
        self.spec, self.fingerprint, self.codebook = spec, fingerprint, network.codebook

        def encode_and_decode(params, video):
            tokens = network.apply({"params": params}, video, method="encode")
            decoded: Any = network.apply({"params": params}, tokens, method="decode")
            return jnp.clip(decoded, 0, 1), tokens.reshape(len(tokens), -1)

        self.networks = {"tokenizer": network}
        self._encode_and_decode = devices.batched(encode_and_decode, params, rows)

    @classmethod
    def load(cls, directory: PathLike) -> "FrozenTokenizer":
        """Loads the tokenizer of a tokenizer's run, a bundle or a MaskGIT run's tokenizer.

        Raises:
            UserError: for a MaskGIT's run, with the path of its tokenizer.
        """
        params, config, fingerprint = checkpoint.load_tokenizer(directory)
        return cls(factory.tokenizer(config), params, factory.video_spec(config), fingerprint)

    def reconstruct(
        self, video: Float[np.ndarray, "b f h w 3"]
    ) -> tuple[Float[np.ndarray, "b f h w 3"], Int[np.ndarray, "b s"]]:
        """(clips in [0, 1], tokens) of `video` in [0, 1]."""
        return self._encode_and_decode(video)
