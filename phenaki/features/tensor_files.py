"""Reader of weight files in every public format as named arrays; executes nothing of a file."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import flax.serialization
import h5py
import ml_dtypes
import numpy as np

from phenaki.errors import UserError
from phenaki.features import torch_files
from phenaki.features.torch_names import flatten
from phenaki.io import paths
from phenaki.io.paths import PathLike

SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
FLOAT = re.compile(r"F(\d+)_")  # F8_E4M3, F8_E5M2, F4_E2M1 and the like
# Errors of the readers where the content is not of the format that the suffix names.
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def read(path: PathLike) -> dict[str, np.ndarray]:
    """All arrays by name: those of PyTorch dotted, those of nested trees joined by "/".

    The suffix tells the format: .pt .pth (PyTorch or TorchScript), .safetensors, .h5, .npz, .flax
    .msgpack. Raises UserError for a missing file, another suffix or damaged content.
    """
    path = paths.path(path)
    if not paths.is_file(path):
        raise UserError(f"{path}: no such file.")
    if path.suffix not in READERS:
        raise UserError(f"{path}: its suffix must be one of {', '.join(READERS)}.")
    try:
        with paths.local(path) as file:
            return READERS[path.suffix](file)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except DAMAGE as error:
        raise UserError(f"{path}: is no {path.suffix} file of arrays, or is cut short.") from error


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    # Eight bytes with the length of a JSON header, the header, then the numbers it points into.
    # The file is mapped, not read: only tensors that are used take memory.
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(bytes(data[:8]), "little")
    tensors = {}
    for name, entry in json.loads(bytes(data[8:start])).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = _safetensors_type(name, entry["dtype"])
            numbers = np.frombuffer(data[start + begin : start + end], dtype)
            tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def _safetensors_type(name: str, dtype: str) -> np.dtype:
    if dtype in SAFETENSORS_TYPES:
        return np.dtype(SAFETENSORS_TYPES[dtype])
    what = f"{match[1]}-bit floating-point numbers" if (match := FLOAT.match(dtype)) else "numbers"
    raise UserError(
        f"tensor {name!r} has {what} of type {dtype}, which are not read; give the file in F32, "
        "BF16 or F16."
    )


def _h5(path: Path) -> dict[str, np.ndarray]:
    tensors = {}

    def keep(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            tensors[name] = np.asarray(item)

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return tensors


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _msgpack(path: Path) -> dict[str, np.ndarray]:
    tree = flax.serialization.msgpack_restore(path.read_bytes())
    return {name: np.asarray(leaf) for name, leaf in flatten(tree).items()}


READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pt": torch_files.read,
    ".pth": torch_files.read,
    ".safetensors": _safetensors,
    ".h5": _h5,
    ".npz": _npz,
    ".flax": _msgpack,
    ".msgpack": _msgpack,
}
