"""Batches spread over this host's devices; hosts share shards, not batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from phenaki import sharding
from phenaki.pipeline import Phenaki


def _mesh():
    return sharding.make_mesh(data=-1, fsdp=1, tensor=1, devices=jax.local_devices())


def whole(params: Any) -> Any:
    """`params` on every device."""
    return jax.device_put(params, NamedSharding(_mesh(), PartitionSpec()))


def split(array: Any) -> Any:
    """Rows over the devices, where they divide; else as it is."""
    if len(array) % len(jax.local_devices()):
        return array
    return jax.device_put(array, NamedSharding(_mesh(), sharding.BATCH))


def batched(function: Callable, params: Any, rows: int) -> Callable:
    """`function(params, *arrays)` compiled once, for arrays of any length, on all devices.

    `rows` per device go through at a time; the last batch is filled up with its last row. Takes and
    returns (trees of) host arrays.
    """
    params, step = whole(params), jax.jit(function)
    size = rows * len(jax.local_devices())

    def run(*arrays):
        found = []
        for start in range(0, len(arrays[0]), size):
            parts = [np.asarray(array[start : start + size]) for array in arrays]
            count = len(parts[0])
            parts = [split(_filled(part, size)) for part in parts]
            found.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], step(params, *parts)))
        return jax.tree.map(lambda *x: np.concatenate(x), *found)

    return run


def _filled(part: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])


class SpreadPhenaki(Phenaki):
    """A model whose batches lie on all devices of this host; the samples are the same."""

    def __init__(self, config, params):
        super().__init__(config, params)
        self.params = whole(self.params)

    def encode(self, videos):
        """As `Phenaki.encode`."""
        return super().encode(split(videos))

    def _decode(self, tokens):
        return super()._decode(split(tokens))

    def _fill(self, tokens, *arguments, **options):
        return super()._fill(split(tokens), *arguments, **options)


def load(directory: str | Path) -> SpreadPhenaki:
    """A bundle or run on all devices."""
    model = SpreadPhenaki.load(directory)
    assert isinstance(model, SpreadPhenaki)
    return model
