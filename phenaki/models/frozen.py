"""A trained tokenizer by itself: videos to tokens and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.io.paths import PathLike
from phenaki.models import factory
from phenaki.sampling.conditioning import check_size
from phenaki.types import VideoSpec


class Tokenizer:
    """Videos [b f h w 3], float32 RGB in [0, 1], to tokens [b t m n] and back (§2.1).

    f is 1 + a multiple of the temporal patch, up to a clip of the tokenizer. A new shape compiles.

    Attributes:
        network: the Flax module; `network.apply({"params": params}, video, method="encode")`.
        params: its parameters.
        spec: clip and patch sizes.
        codebook: number of codes.
        fingerprint: changes with any parameter or size.
    """

    def __init__(self, network: Any, params: Any, spec: VideoSpec, fingerprint: str):
        self.network, self.params, self.spec = network, jax.tree.map(jnp.asarray, params), spec
        self.codebook, self.fingerprint = network.codebook, fingerprint
        self._apply = jax.jit(
            lambda params, x, method: network.apply({"params": params}, x, method=method),
            static_argnames="method",
        )

    @classmethod
    def load(cls, directory: PathLike) -> "Tokenizer":
        """Loads a tokenizer's run or bundle, or the tokenizer of a whole model's bundle.

        Raises:
            UserError: `directory` is the run of a MaskGIT or critic.
        """
        params, config, fingerprint = checkpoint.load_tokenizer(directory)
        return cls(factory.tokenizer(config), params, factory.video_spec(config), fingerprint)

    def encode(self, video: np.ndarray) -> Int[np.ndarray, "b t m n"]:
        """The tokens of `video` [b f h w 3].

        Raises:
            UserError: its size is not the tokenizer's, or its values are not in [0, 1].
        """
        video = check_size(video, self.spec)
        self.spec.grid(video.shape[1])  # f is 1 + a multiple of the patch
        return np.asarray(self._apply(self.params, video, method="encode"))

    def decode(self, tokens: Int[np.ndarray, "b t m n"]) -> Float[np.ndarray, "b f h w 3"]:
        """The video of `tokens`, clipped to [0, 1].

        Raises:
            UserError: a token is not one of the codebook.
        """
        tokens = np.asarray(tokens)
        if not (tokens.min() >= 0 and tokens.max() < self.codebook):
            raise UserError(
                f"tokens: {tokens.min()} to {tokens.max()} must lie in 0 to {self.codebook - 1}."
            )
        video: Any = self._apply(self.params, jnp.asarray(tokens, jnp.int32), method="decode")
        return np.clip(np.asarray(video, np.float32), 0, 1)

    def reconstruct(self, video: Float[np.ndarray, "b f h w 3"]) -> Float[np.ndarray, "b f h w 3"]:
        """`video` through encoder and decoder."""
        return self.decode(self.encode(video))
