"""Seeds of samples: their range, keys and latents, and the seed of every window of a story."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phenaki.schema.rules import check
from phenaki.schema.sampling import SEED


def root_key(seed: int | Array) -> Array:
    """The key of `seed`. Those below 2**32, also traced ones, have that of `jax.random.key`.

    Raises:
        UserError: `seed` is outside of the range.
    """
    if isinstance(seed, jax.core.Tracer):
        return jax.random.key(seed)
    check("seed", seed, SEED)
    high, low = divmod(operator.index(seed), 2**32)
    # jax.random.key drops the upper half unless 64-bit types are enabled.
    key = jax.random.key(np.uint32(low))
    if not high:
        return key
    shape = jax.random.key_data(key).shape
    words = np.resize(np.array([high, low], np.uint32), shape)
    return jax.random.wrap_key_data(jnp.asarray(words))


def latents(keys: Array, size: int) -> Float[Array, "b z"]:
    """z ~ N(0, I) of every row for a student, by its key."""
    # Steps fold their number in: z must be the noise of none of them.
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 2**32 - 1), (size,)))(
        keys
    )


def stream(seed: int, number: int) -> int:
    """The seed of window `number` since the last hard cut: every window has noise of its own.

    Raises:
        UserError: `seed` is outside of the range.
    """
    check("seed", seed, SEED)
    return (operator.index(seed) + 1_000_003 * number) % 2**SEED.bits
