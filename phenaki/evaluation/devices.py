"""Batches on all devices of this host, in groups of one size; hosts split shards among them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki import sharding
from phenaki.io.paths import PathLike
from phenaki.pipeline import Phenaki


def local_mesh() -> Mesh:
    """This host's devices, all on the data axis: parameters are whole on each of them."""
    return sharding.make_mesh(data=-1, fsdp=1, tensor=1, devices=jax.local_devices())


def load(directory: PathLike) -> Phenaki:
    """The model of a bundle or run on this host's devices, for any number of rows."""
    return Phenaki.load(directory).shard(local_mesh(), pad=True)


def in_groups(run: Callable[[np.ndarray], Any], count: int, size: int) -> Any:
    """`run(rows)` for the rows 0 .. `count` - 1, `size` at a time, so that it compiles once.

    `run` takes row numbers and returns a tree of arrays with a row for each of them. The last group
    repeats its last row up to `size`. Returns the tree of all rows as NumPy arrays.
    """
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        part = run(np.minimum(rows, count - 1))
        parts.append(jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows < count], part))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def batched(function: Callable, params: Any, rows: int) -> Callable:
    """`function(params, *arrays)` compiled once, for host arrays of any length, on all devices.

    `rows` per device are computed at a time. Takes and returns (trees of) host arrays.
    """
    mesh = local_mesh()
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    split = NamedSharding(mesh, sharding.BATCH)
    step = jax.jit(function)

    def run(*arrays):
        def group(rows):
            parts = [jax.device_put(np.asarray(array)[rows], split) for array in arrays]
            return step(params, *parts)

        return in_groups(group, len(arrays[0]), rows * mesh.size)

    return run
