"""Random access to the records of TFRecord shards.

Records are read in any order, without reading those before them. Each is verified against its
checksum when it is read.
"""

import concurrent.futures
import functools
import os
import struct
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import google_crc32c
import numpy as np
import tensorstore as ts
from absl import logging

from phenaki.data import tensorflow
from phenaki.errors import UserError
from phenaki.io import paths

_HEADER = struct.Struct("<Q4x")  # length and its checksum; after the data follows their checksum
_FOOTER = 4
_MASK = 0xA282EAD8  # a TFRecord checksum is rotated by 15 bits, then this is added
LENGTHS = ".lengths.npy"  # suffix of the file with a shard's record lengths, which saves a scan
OPEN = 256  # local shards held open at a time
# Concurrent reads. On a network disk a read waits tens of milliseconds without using the CPU.
THREADS = 32
DAMAGED = 100  # consecutive corrupt records that are skipped; more are an error


class Damaged(UserError):
    """A record whose checksum is wrong."""


class Records:
    """The records of several shards as one sequence of bytes objects.

    The constructor reads the record lengths, from `LENGTHS` files or from the shards; 16 bytes per
    record stay in memory. Reads are thread-safe, and faster from several threads.

    Raises:
        UserError: a shard does not have as many records as `counts` says, where that is given.
        Damaged: on reading a record whose checksum is wrong.
    """

    def __init__(self, paths: Sequence[os.PathLike | str], counts: Sequence[int] | None = None):
        self.paths = [os.fspath(path) for path in paths]
        spans = parallel_map(_spans, self.paths)
        if counts is not None:
            check_counts(self.paths, [len(s) for s in spans], counts)
        self._shard = np.repeat(np.arange(len(spans), dtype=np.int32), [len(s) for s in spans])
        self._offset = np.concatenate([s[:, 0] for s in spans] or [np.zeros(0, np.int64)])
        lengths = np.concatenate([s[:, 1] for s in spans] or [np.zeros(0, np.int64)])
        self._length = lengths.astype(np.uint32)
        # Opening a file takes longer than reading a record.
        self._open = functools.lru_cache(OPEN)(_open)
        self._damaged: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._offset)

    def __getitem__(self, index: int) -> bytes:
        path, length = self.paths[self._shard[index]], int(self._length[index])
        found = _read(self._open(path), int(self._offset[index]), length + _FOOTER)
        if _checksum(found[:length]) != found[length:]:
            number = index - int(np.searchsorted(self._shard, self._shard[index]))
            raise Damaged(f"{path}: record {number} is corrupt; write the data set again.")
        return found[:length]

    def take(self, indices: Sequence[int]) -> list[bytes]:
        """Reads the records `indices`, `THREADS` at a time; returns them in that order.

        A corrupt record is replaced by the next valid one, deterministically, with a warning.
        """
        parts = np.array_split(np.asarray(indices), min(THREADS, max(len(indices), 1)))
        read = parallel_map(lambda part: [self._next_valid(int(index)) for index in part], parts)
        return [record for part in read for record in part]

    def _next_valid(self, index: int) -> bytes:
        for place in range(index, index + DAMAGED):
            try:
                return self[place % len(self)]
            except Damaged as error:
                with self._lock:  # two threads may read one record
                    if place not in self._damaged:
                        logging.warning("%s It is replaced by the next record.", error)
                    self._damaged.add(place)
                last = error
        raise last


def check_counts(paths: Sequence[str], found: Sequence[int], counts: Sequence[int]) -> None:
    """Raises `UserError` for a shard that has another number of records than the set says.

    One that was cut between two records looks like a whole one.
    """
    for path, there, count in zip(paths, found, counts, strict=True):
        if there != count:
            raise UserError(
                f"{path}: has {there} of its {count} records; copy it again, or write the data set "
                "again."
            )


def parallel_map(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """[function(item) for item in items] in `THREADS` threads, for functions that wait for I/O."""
    return list(_threads().map(function, items))


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(THREADS, "records")


def lengths(path: str) -> np.ndarray:
    """The lengths of a shard's records in bytes, as its `LENGTHS` file holds them."""
    return _scan(path)[:, 1].astype(np.uint32)


def _checksum(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return (((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF).to_bytes(4, "little")


class _LocalFile:
    """A local file, open until its last reference is dropped."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor).atexit = False  # threads may still read

    def read(self, offset: int, length: int) -> bytes:
        # Threads share the descriptor: `pread` has no file position, and releases the GIL.
        return os.pread(self.descriptor, length, offset)


class _Object:
    """An object in a bucket. TensorFlow would fetch 64 MB of it for every record."""

    def __init__(self, path: str):
        bucket, _, self.key = path.removeprefix(paths.REMOTE).partition("/")
        place = {"driver": "gcs", "bucket": bucket}
        self.store = ts.KvStore.open(place).result()

    def read(self, offset: int, length: int) -> bytes:
        found = self.store.read(self.key, byte_range=slice(offset, offset + length)).result()
        return found.value  # empty where the object is gone: its checksum is wrong


def _open(path: str) -> _LocalFile | _Object:
    return _Object(path) if paths.is_remote(path) else _LocalFile(path)


def _read(file: _LocalFile | _Object, offset: int, length: int) -> bytes:
    return file.read(offset, length)


def _spans(path: str) -> np.ndarray:
    """(offset, length) of the data of each record [n, 2]."""
    tf = tensorflow.tensorflow()
    try:
        return _stored_spans(path, tf.io.gfile)
    except (FileNotFoundError, tf.errors.NotFoundError):
        raise UserError(f"{path}: is missing; copy the data set again.") from None


def _stored_spans(path: str, gfile: Any) -> np.ndarray:
    if not gfile.exists(path + LENGTHS):
        return _scan(path)
    try:
        with gfile.GFile(path + LENGTHS, "rb") as file:
            known = np.load(file, allow_pickle=False)
        if known.ndim != 1 or known.dtype.kind != "u":
            raise ValueError(f"{known.dtype}{list(known.shape)}")
        known = known.astype(np.int64)
    except Exception as error:  # NumPy raises anything on a damaged file
        logging.warning("%s%s: is damaged (%s); the shard is read instead.", path, LENGTHS, error)
        return _scan(path)
    ends = np.cumsum(known + _HEADER.size + _FOOTER)
    if gfile.stat(path).length != (ends[-1] if len(ends) else 0):
        raise UserError(f"{path}: does not match its {LENGTHS} file; write the data set again.")
    return np.stack([ends - known - _FOOTER, known], 1)


def _scan(path: str) -> np.ndarray:
    gfile = tensorflow.tensorflow().io.gfile
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
