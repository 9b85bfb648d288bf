"""Checksums of parameter trees and of checkpointed arrays."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def digest(tree: Any, header: bytes = b"") -> str:
    """16 hex digits that change with `header`, and with any path or value of `tree`."""
    sha = hashlib.sha256(header)
    for path, leaf in sorted(
        (jax.tree_util.keystr(k), v) for k, v in jax.tree_util.tree_leaves_with_path(tree)
    ):
        sha.update(path.encode())
        sha.update(np.asarray(leaf, np.float32).tobytes())
    return sha.hexdigest()[:16]


def array_sums(tree: Any) -> list[int]:
    """A checksum of every array on any mesh: the sum of its elements' bits as integers."""
    return [int(total) for total in jax.device_get(_bit_sums(jax.tree.leaves(tree)))]


def bit_sum(array: Any) -> int:
    """The checksum of one array, as in `array_sums`."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return array_sums([array])[0]
    bits = np.ascontiguousarray(array)
    if bits.dtype != bool:
        bits = bits.view(f"u{bits.dtype.itemsize}")
    return int(bits.sum(dtype=np.uint32))


@jax.jit
def _bit_sums(leaves):
    def total(leaf):
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = leaf if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, unsigned)
        return bits.astype(jnp.uint32).sum(dtype=jnp.uint32)

    return [total(leaf) for leaf in leaves]
