"""Any tokenizer of Table 3, for reconstruction on all devices."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from phenaki.evaluation import devices
from phenaki.io import checkpoint
from phenaki.models import factory


class FrozenTokenizer:
    """A tokenizer's run or bundle, or that of a whole model."""

    def __init__(self, config: Any, params: Any, rows: int = 4):
        self.config, self.spec = config, factory.video_spec(config)
        self.fingerprint = checkpoint.fingerprint(params, config.to_dict())
        network = factory.tokenizer(config)

        def through(params, video):
            tokens = network.apply({"params": params}, video, method="encode")
            decoded: Any = network.apply({"params": params}, tokens, method="decode")
            return jnp.clip(decoded, 0, 1), tokens.reshape(len(tokens), -1)

        self._through = devices.batched(through, params, rows)

    @classmethod
    def load(cls, directory: str | Path) -> "FrozenTokenizer":
        """UserError for a MaskGIT's run, naming where its tokenizer lies."""
        params, config, _ = checkpoint.load_tokenizer(directory)
        return cls(config, params)

    def reconstruct(self, video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(clips [b f h w 3] in [0, 1], codes [b s])."""
        return self._through(video)
