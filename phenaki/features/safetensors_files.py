"""Reader of safetensors: eight bytes with the length of a JSON header, the header, the numbers.

The file is mapped, not read: only tensors that are used take memory. The format has no checksums,
but its header leaves no byte open: tensors follow each other from the first number to the last.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from phenaki.errors import UserError

MAX_HEADER = 10**8  # bytes, the format's own limit
TYPES = {
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
_FLOAT = re.compile(r"F(\d+)_")  # F8_E4M3, F8_E5M2, F4_E2M1 and the like


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a local file by name.

    Raises:
        UserError: a tensor is of a type that NumPy has not.
        ValueError, LookupError, TypeError: the header is none, or does not fit the file.
    """
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(bytes(data[:8]), "little")
    if not 8 < start <= min(len(data), 8 + MAX_HEADER):
        raise ValueError(f"a header of {start - 8} bytes in a file of {len(data)}")
    header = json.loads(bytes(data[8:start]), object_pairs_hook=_once)
    header.pop("__metadata__", None)
    end = 0
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = _type(name, entry["dtype"]), entry["shape"]
        if entry["data_offsets"][0] != end:
            raise ValueError(f"tensor {name!r} does not follow the one before")
        end += _bytes(name, shape, dtype, *entry["data_offsets"])
        if start + end > len(data):
            raise ValueError(f"tensor {name!r} ends after the file")
        numbers = np.frombuffer(data[start + entry["data_offsets"][0] : start + end], dtype)
        tensors[name] = numbers.reshape(shape)
    if start + end != len(data):
        raise ValueError(f"{len(data) - start - end} bytes belong to no tensor")
    return tensors


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is twice in its header")
    return found


def _bytes(name: str, shape: Any, dtype: np.dtype, begin: Any, end: Any) -> int:
    numbers = [*shape, begin, end]
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"tensor {name!r} has shape {shape}, from byte {begin} to {end}")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"tensor {name!r} of shape {shape} does not have {end - begin} bytes")
    return end - begin


def _type(name: str, dtype: str) -> np.dtype:
    if dtype in TYPES:
        return np.dtype(TYPES[dtype])
    what = f"{match[1]}-bit floating-point numbers" if (match := _FLOAT.match(dtype)) else "numbers"
    raise UserError(
        f"tensor {name!r} has {what} of type {dtype}, which are not read; give the file in F32, "
        "BF16 or F16."
    )
