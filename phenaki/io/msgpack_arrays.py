"""Arrays in msgpack, as Flax writes them: a tuple of shape, type and numbers in an extension.

Everything in a file is data of others: every shape is compared with the numbers there are.
"""

import math
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np

NDARRAY, COMPLEX, SCALAR = 1, 2, 3  # Flax's extensions
CHUNKED = "__msgpack_chunked_array__"  # an array of more than a gigabyte, in parts


def array_of(code: int, data: bytes) -> Any:
    """The value of an extension, for msgpack's `ext_hook`.

    Raises:
        ValueError: an unknown extension, or a shape that is not that of the numbers.
    """
    if code == COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (NDARRAY, SCALAR):
        raise ValueError(f"msgpack extension {code}")
    shape, name, numbers = msgpack.unpackb(data)
    dtype = jnp.dtype(name)
    if dtype.hasobject or dtype.kind in "SUmM":
        raise ValueError(f"an array of type {dtype}")
    check_shape(shape, len(numbers) // dtype.itemsize)
    if len(numbers) % dtype.itemsize:
        raise ValueError(f"{len(numbers)} bytes of {dtype}")
    return np.frombuffer(numbers, dtype).reshape(shape)


def check_shape(shape: Any, count: int) -> None:
    """Raises ValueError unless `count` numbers can have that shape."""
    whole = isinstance(shape, list | tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not whole or math.prod(shape) != count:
        raise ValueError(f"{count} numbers cannot have shape {shape}")


def joined(node: dict[str, Any]) -> np.ndarray:
    """The array of a tree that has `CHUNKED`.

    Raises:
        ValueError, LookupError: a part is missing, or is none.
    """
    chunks = [node["chunks"][str(i)] for i in range(len(node["chunks"]))]
    shape = [node["shape"][str(i)] for i in range(len(node["shape"]))]
    flat = np.concatenate(chunks)
    check_shape(shape, flat.size)
    return flat.reshape(shape)
