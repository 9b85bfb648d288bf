"""Reader of the arrays of HDF5 files.

HDF5 itself gives zeros for numbers that a file does not have, and opens other files that a data set
may name; neither is taken here.
"""

import math
from pathlib import Path

import h5py
import numpy as np

from phenaki.io.npz import INFLATED


def read(path: Path) -> dict[str, np.ndarray]:
    """Every array of numbers of a local file by its path; texts are left out.

    Raises:
        ValueError: an array is not whole in this file.
        Exception: others of h5py, on a damaged file.
    """
    size = path.stat().st_size
    tensors = {}

    def keep(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "biufcV":
            _check(name, item, size)
            tensors[name] = np.asarray(item)

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return tensors


def _check(name: str, item: h5py.Dataset, size: int) -> None:
    if item.is_virtual or item.external:
        raise ValueError(f"{name} has its numbers in another file")
    if item.dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    stored = item.id.get_storage_size()
    if item.chunks is None:
        whole = stored == item.nbytes
    else:
        wanted = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True))
        whole = item.id.get_num_chunks() == wanted
    if not whole or stored > size or item.nbytes > INFLATED * size:
        raise ValueError(f"{name} of shape {item.shape} is not whole")
