"""Random access to TFRecord shards: any order and any start without reading what lies before."""

import concurrent.futures
import functools
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from phenaki.data import lazy
from phenaki.errors import UserError

_HEADER = struct.Struct("<Q4x")  # length and its checksum; a checksum of the data follows it
_FOOTER = 4
LENGTHS = ".lengths.npy"  # beside a shard: the lengths of its records, so that nobody scans it
OPEN = 256  # local shards held open at a time
# Reads at a time: of a network's disk each takes tens of milliseconds, of which none is work.
THREADS = 32


class Records:
    """The records of several shards as one sequence of bytes objects.

    Construction reads the lengths of the records once, from beside a shard or out of it; 16 bytes
    per record stay in memory. Reading is safe, and worth while, from several threads.
    """

    def __init__(self, paths: Sequence[os.PathLike | str]):
        self.paths = [os.fspath(path) for path in paths]
        spans = side_by_side(_spans, self.paths)
        self._shard = np.repeat(np.arange(len(spans), dtype=np.int32), [len(s) for s in spans])
        self._offset = np.concatenate([s[:, 0] for s in spans] or [np.zeros(0, np.int64)])
        lengths = np.concatenate([s[:, 1] for s in spans] or [np.zeros(0, np.int64)])
        self._length = lengths.astype(np.uint32)
        # Opening a file for every record would cost more than reading it.
        self._open = functools.lru_cache(OPEN)(_open)

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index: int) -> bytes:
        path = self.paths[self._shard[index]]
        return _read(path, self._open(path), int(self._offset[index]), int(self._length[index]))

    def take(self, indices: Sequence[int]) -> list[bytes]:
        """The records of these numbers, in their order, `THREADS` of them read at a time."""
        parts = np.array_split(np.asarray(indices), min(THREADS, max(len(indices), 1)))
        read = side_by_side(lambda part: [self[int(index)] for index in part], parts)
        return [record for part in read for record in part]


def side_by_side(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """[function(item) for item in items] in `THREADS` threads, for what waits for disks."""
    return list(_threads().map(function, items))


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(THREADS, "records")


def lengths(path: str) -> np.ndarray:
    """The lengths of a shard's records, in bytes, to be saved beside it."""
    return _scan(path)[:, 1].astype(np.uint32)


class _Local:
    """A file of this machine's own file systems, open as long as anyone holds it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.descriptor)


def _open(path: str) -> _Local | None:
    """None for a file in a bucket."""
    return _Local(path) if os.path.isfile(path) else None


def _read(path: str, file: _Local | None, offset: int, length: int) -> bytes:
    if file is not None:
        return os.pread(file.descriptor, length, offset)  # needs no place of its own, nor the GIL
    with lazy.tensorflow().io.gfile.GFile(path, "rb") as remote:
        remote.seek(offset)
        return remote.read(length)


def _spans(path: str) -> np.ndarray:
    """(offset, length) of the data of each record [n, 2]."""
    gfile = lazy.tensorflow().io.gfile
    if not gfile.exists(path + LENGTHS):
        return _scan(path)
    with gfile.GFile(path + LENGTHS, "rb") as file:
        known = np.load(file, allow_pickle=False).astype(np.int64)
    ends = np.cumsum(known + _HEADER.size + _FOOTER)
    if gfile.stat(path).length != (ends[-1] if len(ends) else 0):
        raise UserError(
            f"{path}: is not the file of {LENGTHS} beside it; write the data set again."
        )
    return np.stack([ends - known - _FOOTER, known], 1)


def _scan(path: str) -> np.ndarray:
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
