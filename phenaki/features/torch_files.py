"""Reader of PyTorch's weight files with NumPy: needs no torch and executes no code of a file.

A file is a pickle of tensors that refer to storages, raw numbers. Since torch 1.6 the storages are
other members of the same zip archive (TorchScript archives too); before, they follow the pickle in
the file. The unpickler knows the few names that tensors are made of and refuses all others. What it
makes are descriptions; numbers are read after every one of them was compared with the file.
"""

import collections
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from phenaki.errors import UserError
from phenaki.features import pickles
from phenaki.io.npz import check_member

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the old format
REPEATS = 1024  # times that a tensor may repeat its storage (`expand`): it is written out here
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


class _Type(NamedTuple):
    """A class of storages. No NumPy type: those have a `__setstate__` that a pickle could call."""

    name: str


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a .pt or .pth file by its dotted name, those of nested modules included.

    Raises:
        UserError: the pickle has anything else than tensors.
        Exception: the file is damaged.
    """
    with path.open("rb") as file:
        content, storages = _read_zip(file) if zipfile.is_zipfile(file) else _read_stream(file)
    return {name: _numbers(name, tensor, storages) for name, tensor in _tensors(content, "")}


Storages = Callable[[_Storage], np.ndarray]


def _read_zip(file: BufferedIOBase) -> tuple[Any, Storages]:
    members: dict[str, bytes] = {}
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        (root,) = {name.split("/")[0] for name in archive.namelist()}

        def take(name: str) -> bytes:
            info = archive.getinfo(f"{root}/{name}")
            check_member(info, size)
            return archive.read(info)  # compares the CRC-32, too

        unpickler = _Unpickler(BytesIO(pickles.checked(BytesIO(take("data.pkl")))))
        content = unpickler.load()
        for storage in unpickler.storages.values():
            members[storage.key] = take(f"data/{storage.key}")
            _check_size(storage, len(members[storage.key]))
    return content, lambda storage: np.frombuffer(members[storage.key], storage.dtype)


def _read_stream(file: BufferedIOBase) -> tuple[Any, Storages]:
    size = file.seek(0, 2)
    file.seek(0)

    def load() -> tuple[Any, dict[str, _Storage]]:
        unpickler = _Unpickler(BytesIO(pickles.checked(file)))
        return unpickler.load(), unpickler.storages

    if load()[0] != MAGIC:
        raise pickle.UnpicklingError("no file of PyTorch")
    load()  # version of the format
    load()  # sizes on the machine that wrote it
    content, storages = load()
    found = {}
    for key in load()[0]:
        storage = storages[key]
        count = int.from_bytes(file.read(8), "little")
        numbers = file.read(min(count * storage.dtype.itemsize, size))
        _check_size(storage, len(numbers))
        if count != storage.size:
            raise ValueError(f"storage {key} has {count} numbers, not {storage.size}")
        found[key] = numbers
    return content, lambda storage: np.frombuffer(found[storage.key], storage.dtype)


def _check_size(storage: _Storage, size: int) -> None:
    if storage.size * storage.dtype.itemsize != size:
        raise ValueError(f"storage {storage.key} has {size} bytes for {storage.size} numbers")


class _Unpickler(pickle.Unpickler):
    """Unpickler that describes storages and tensors; `storages` are all of them by key."""

    def __init__(self, file: BufferedIOBase):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return _Type(name)
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

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count, *view = pid
        if any(view):  # of another storage; written by torch 0.x only
            raise UserError("the file's storages share memory: save its state dict anew.")
        if type(key) is not str or type(kind) is not _Type or not _whole(count):
            raise ValueError("a storage without a name, a type or a size")
        storage = _Storage(key, STORAGES[kind.name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} has two types or sizes")
        return storage


class _Module:
    """A TorchScript module: its attributes without its code."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _whole(number: Any) -> bool:
    return type(number) is int and number >= 0


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """A tensor within its storage.

    Raises:
        ValueError: it is not; numbers from elsewhere in memory would be read.
    """
    sizes = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(map(_whole, sizes)):
        raise ValueError(f"a tensor from {offset} on with shape {shape} and strides {strides}")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.size:
        raise ValueError(f"a tensor up to number {last} of a storage of {storage.size}")
    if math.prod(shape) > REPEATS * storage.size:
        raise ValueError(f"a tensor of shape {shape} repeats {storage.size} numbers")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _numbers(name: str, tensor: _Tensor, storages: Storages) -> np.ndarray:
    numbers = storages(tensor.storage)
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, numbers.dtype)
    steps = [stride * numbers.itemsize for stride in tensor.strides]
    return np.array(np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps))


def _tensors(node: Any, name: str) -> Iterator[tuple[str, _Tensor]]:
    """Yields (name, tensor) of every tensor below `node`; other values are left out."""
    if isinstance(node, _Module):
        node = node.state
    if isinstance(node, _Tensor):
        yield name, node
    elif isinstance(node, Mapping):
        for key, child in node.items():
            yield from _tensors(child, f"{name}.{key}" if name else str(key))
