"""Reader of NumPy's .npz archives that checks every size before it takes memory for it.

An archive is a zip of .npy files. It has a CRC-32 of each, so that damaged numbers are noticed.
NumPy's own reader takes the memory that a header asks for before it looks at them.
"""

import math
import zipfile
from collections.abc import Container
from pathlib import Path

import numpy as np

PART = 2**20  # bytes read at a time
INFLATED = 1032  # bytes that one byte of DEFLATE can stand for, at most
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(path: Path, names: Container[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a local file by name; all, or those in `names` that it has.

    Raises:
        ValueError: an array is none of numbers, or its header does not fit the file.
        Exception: others of `zipfile`, which raises a dozen types on a damaged file.
    """
    size = path.stat().st_size
    arrays = {}
    with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if names is None or name in names:
                check_member(info, size)
                arrays[name] = _array(archive, info)
    return arrays


def check_member(info: zipfile.ZipInfo, size: int) -> None:
    """Raises ValueError unless a zip of `size` bytes can have such a member."""
    if info.flag_bits & 1:
        raise ValueError(f"{info.filename} is encrypted")
    if info.compress_size > size or info.file_size > INFLATED * info.compress_size:
        raise ValueError(f"{info.filename} is larger than the file allows")


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{info.filename} has version {version} of .npy")
        shape, fortran, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        if min(shape, default=0) < 0:
            raise ValueError(f"{info.filename} has shape {shape}")
        count = math.prod(shape)
        if count * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{info.filename} does not have the {count} numbers of its header")
        array = np.empty(count, dtype)
        target = array.view(np.uint8) if array.nbytes else array
        at = 0
        while part := file.read(PART):  # to the end, where the CRC-32 is compared
            target[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        if at != array.nbytes:
            raise EOFError(f"{info.filename} is cut short")
    return array.reshape(shape, order="F" if fortran else "C")
