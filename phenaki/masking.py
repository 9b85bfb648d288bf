"""Which codes a training sample hides (§2.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def mask_ratio(r: Float[Array, "..."]) -> Float[Array, "..."]:
    """γ(r) = cos(πr/2), the share of masked codes, within [1e-6, 1]."""
    return jnp.clip(jnp.cos(jnp.pi / 2 * r), 1e-6, 1.0)


def sample_mask(key: Array, shape: tuple[int, int]) -> Bool[Array, "b s"]:
    """True at exactly ⌈γN⌉ uniformly random positions of a row; γ(r) with r ~ U[0, 1) per row."""
    rows, length = shape
    key_ratio, key_order = jax.random.split(key)
    ratio = mask_ratio(jax.random.uniform(key_ratio, (rows,)))
    # §2.2 rounds up, so that at least one code is masked; MaskGIT's sampler rounds down.
    count = jnp.clip(jnp.ceil(ratio * length), 1, length).astype(jnp.int32)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(key_order, shape), axis=-1), axis=-1)
    return rank < count[:, None]


def apply_mask(
    codes: Int[Array, "b s"], mask: Bool[Array, "b s"], mask_id: int
) -> Int[Array, "b s"]:
    """`codes` with `mask_id` where `mask` is True."""
    return jnp.where(mask, mask_id, codes)


def keep_text(key: Array, rows: int, drop: float) -> Bool[Array, " b"]:
    """False for the share `drop` of samples that train without their text (guidance, §2.2)."""
    return jax.random.uniform(key, (rows,)) >= drop
