"""Random access to TFRecord shards: any order and any start without reading what lies before."""

import os
import struct
from collections.abc import Sequence

import numpy as np

from phenaki.data import lazy
from phenaki.errors import UserError

_HEADER = struct.Struct("<Q4x")  # length and its checksum; a checksum of the data follows it
_FOOTER = 4


class Records:
    """The records of several shards as one sequence of bytes objects.

    Construction reads the header of each record once; 16 bytes per record stay in memory.
    """

    def __init__(self, paths: Sequence[os.PathLike | str]):
        self.paths = [os.fspath(path) for path in paths]
        spans = [_spans(path) for path in self.paths]
        self._shard = np.repeat(np.arange(len(spans), dtype=np.int32), [len(s) for s in spans])
        self._offset = np.concatenate([s[:, 0] for s in spans] or [np.zeros(0, np.int64)])
        lengths = np.concatenate([s[:, 1] for s in spans] or [np.zeros(0, np.int64)])
        self._length = lengths.astype(np.uint32)

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index: int) -> bytes:
        path = self.paths[self._shard[index]]
        with lazy.tensorflow().io.gfile.GFile(path, "rb") as file:
            file.seek(int(self._offset[index]))
            return file.read(int(self._length[index]))


def _spans(path: str) -> np.ndarray:
    """(offset, length) of the data of each record [n, 2]."""
    gfile = lazy.tensorflow().io.gfile
    size = gfile.stat(path).length
    spans, at = [], 0
    with gfile.GFile(path, "rb") as file:
        while at < size:
            file.seek(at)
            header = file.read(_HEADER.size)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
            spans.append((at + _HEADER.size, length))
            at += _HEADER.size + length + _FOOTER
    if at != size:
        raise UserError(f"{path}: truncated or not a TFRecord file; write the data set again.")
    return np.array(spans, np.int64).reshape(-1, 2)
