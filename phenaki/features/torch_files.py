"""Reader of PyTorch's weight files with NumPy: needs no torch and executes no code of a file.

A file is a pickle of tensors that refer to storages, raw numbers. Since torch 1.6 the storages are
other members of the same zip archive (TorchScript archives too); before, they follow the pickle in
the file. The unpickler knows the few names that tensors are made of and refuses all others.
"""

import collections
import pickle
import zipfile
from collections.abc import Callable, Mapping
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from phenaki.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the old format
STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a .pt or .pth file by its dotted name, those of nested modules included.

    Raises UserError for pickles of anything else than tensors, and the errors of
    `tensor_files.DAMAGE` for damaged files.
    """
    with path.open("rb") as file:
        content = _read_zip(file) if zipfile.is_zipfile(file) else _read_stream(file)
    return dict(_tensors(content, ""))


def _read_zip(file: BufferedIOBase) -> Any:
    with zipfile.ZipFile(file) as archive:
        (root,) = {name.split("/")[0] for name in archive.namelist()}

        def storage(dtype, key, count):
            return np.frombuffer(archive.read(f"{root}/data/{key}"), dtype, count)

        return _Unpickler(BytesIO(archive.read(f"{root}/data.pkl")), storage).load()


def _read_stream(file: BufferedIOBase) -> Any:
    file.seek(0)
    storages: dict[str, np.ndarray] = {}

    def storage(dtype, key, count):
        # The numbers follow the pickle. Tensors are views of this array, which is filled later.
        return storages.setdefault(key, np.empty(count, dtype))

    if _Unpickler(file, storage).load() != MAGIC:
        raise pickle.UnpicklingError
    _Unpickler(file, storage).load()  # version of the format
    _Unpickler(file, storage).load()  # sizes on the machine that wrote it
    content = _Unpickler(file, storage).load()
    for key in _Unpickler(file, storage).load():
        count = int.from_bytes(file.read(8), "little")
        numbers = file.read(count * storages[key].itemsize)
        storages[key][:] = np.frombuffer(numbers, storages[key].dtype, count)
    return content


class _Unpickler(pickle.Unpickler):
    """Unpickler that makes NumPy arrays where PyTorch makes tensors."""

    def __init__(self, file: BufferedIOBase, storage: Callable[[np.dtype, str, int], np.ndarray]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module.startswith("__torch__"):  # a class of a TorchScript archive
            return _Module
        if module == "torch.jit._pickle":  # its lists of numbers
            return lambda *values: None
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): _tensor,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) not in known:
            raise UserError(
                f"{module}.{name} in the file is no tensor and is not loaded: it may run any "
                "code. Save the state dict alone."
            )
        return known[module, name]

    def persistent_load(self, pid: tuple) -> np.ndarray:
        _, dtype, key, _, count, *view = pid
        if any(view):  # of another storage; written by torch 0.x only
            raise UserError("the file's storages share memory: save its state dict anew.")
        return self._storage(dtype, key, count)


class _Module:
    """A TorchScript module: its attributes without its code."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and not 0 <= offset <= last < len(storage):
        raise IndexError
    steps = [s * storage.itemsize for s in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)


def _tensors(node: Any, name: str):
    """Yields (name, array) of every tensor below `node`; other values are left out."""
    if isinstance(node, _Module):
        node = node.state
    if isinstance(node, np.ndarray):
        yield name, np.array(node)
    elif isinstance(node, Mapping):
        for key, child in node.items():
            yield from _tensors(child, f"{name}.{key}" if name else str(key))
