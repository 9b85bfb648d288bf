"""Reader of weight files in every public format as named arrays; executes nothing of a file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from phenaki.errors import UserError
from phenaki.features import safetensors_files, torch_files
from phenaki.io import msgpack_arrays, npz, paths
from phenaki.io.paths import PathLike


def read(path: PathLike) -> dict[str, np.ndarray]:
    """All arrays by name: those of PyTorch dotted, those of nested trees joined by "/".

    The suffix tells the format: .pt .pth (PyTorch or TorchScript), .safetensors, .h5, .npz, .flax
    .msgpack. Every number of a header is compared with the file before any array is read.

    Raises:
        UserError: the file is missing, has another suffix, or is damaged.
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
    except Exception as error:  # the libraries raise anything on a damaged file
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: is no {path.suffix} file of arrays, or is cut short or damaged ({why})."
        ) from error


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    # Imported here: of all formats, this one alone needs h5py.
    from phenaki.features import hdf5_files

    return hdf5_files.read(path)


def _msgpack(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    tree = msgpack.unpackb(
        content, raw=False, strict_map_key=False, ext_hook=msgpack_arrays.array_of
    )
    if not isinstance(tree, Mapping):
        raise TypeError(f"a {type(tree).__name__}, not arrays by name")
    return dict(_leaves(tree, ""))


def _leaves(tree: Mapping[str, Any], path: str):
    for key, node in tree.items():
        name = f"{path}{key}"
        if isinstance(node, Mapping) and msgpack_arrays.CHUNKED in node:
            yield name, msgpack_arrays.joined(dict(node))
        elif isinstance(node, Mapping):
            yield from _leaves(node, f"{name}/")
        else:
            array = np.asarray(node)
            if array.dtype.kind not in "biufcV":
                raise TypeError(f"{name} is {type(node).__name__}, not numbers")
            yield name, array


READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pt": torch_files.read,
    ".pth": torch_files.read,
    ".safetensors": safetensors_files.read,
    ".h5": _hdf5,
    ".npz": npz.read,
    ".flax": _msgpack,
    ".msgpack": _msgpack,
}
