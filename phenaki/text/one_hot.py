"""Text encoder of class names: a one-hot row per caption, without parameters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class OneHot(nn.Module):
    """ids [b l] from 1 to `width` -> one-hot rows [b l width]; id 0, no class, gives zeros.

    The projection of text to keys and values then learns a row per class.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        return jax.nn.one_hot(ids - 1, self.width, dtype=self.dtype)
