"""Atomic file writes and completion markers, on local disks and injected file systems.

A reader finds a file complete or not at all, also after a kill. A completion marker is a small JSON
file that is written after the file it describes: the work behind it is done and need not be redone.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

CHUNK = 2**24  # bytes hashed at a time


@runtime_checkable
class FileSystem(Protocol):
    """What this module needs of a file system; `data.tensorflow.GFILES` is that of buckets."""

    def open(self, path: str, mode: str) -> Any:
        """Opens a file; text is UTF-8."""

    def replace(self, source: str, target: str) -> None:
        """Renames `source`, replacing `target`."""

    def remove(self, path: str) -> None:
        """Removes a file."""

    def size(self, path: str) -> int:
        """Bytes of a file; -1 if there is none."""


class LocalFiles:
    """The `FileSystem` of this machine."""

    def open(self, path: str, mode: str) -> Any:
        """Opens a file; text is UTF-8."""
        return open(path, mode, encoding=None if "b" in mode else "utf-8")

    def replace(self, source: str, target: str) -> None:
        """Renames `source`, replacing `target`."""
        os.replace(source, target)

    def remove(self, path: str) -> None:
        """Removes a file."""
        os.remove(path)

    def size(self, path: str) -> int:
        """Bytes of a file; -1 if there is none."""
        return os.stat(path).st_size if os.path.isfile(path) else -1


LOCAL = LocalFiles()


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends without an error."""
    with atomic_on(LOCAL, path) as partial:
        yield Path(partial)


@contextlib.contextmanager
def atomic_on(files: FileSystem, path: str | os.PathLike[str]) -> Iterator[str]:
    """As `atomic`, on the file system `files`.

    The temporary name is unique: processes that write the same file at the same time each replace
    it with a complete one.
    """
    directory, name = os.path.split(os.fspath(path))
    partial = os.path.join(directory, f".{name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        files.replace(partial, os.fspath(path))
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to see
            files.remove(partial)
        raise


def write_json(
    path: str | os.PathLike[str], content: Any, files: FileSystem = LOCAL, **options: Any
) -> None:
    """Writes `content` and a newline atomically; `options` are those of `json.dumps`."""
    with atomic_on(files, path) as partial, files.open(partial, "w") as file:
        file.write(json.dumps(content, **options) + "\n")


def mark(
    marker: str | os.PathLike[str], key: dict[str, Any], files: FileSystem = LOCAL, **options: Any
) -> None:
    """Writes the completion marker of a file that is complete by now.

    Args:
        marker: path of the marker, which lies next to what it describes.
        key: what the file was made from, and whatever its reader wants to know.
    """
    write_json(marker, key, files, **options)


def marked(marker: str | os.PathLike[str], files: FileSystem = LOCAL) -> dict[str, Any] | None:
    """The `key` of a completion marker; None if it is absent or not valid JSON."""
    if files.size(os.fspath(marker)) < 0:
        return None
    try:
        with files.open(os.fspath(marker), "r") as file:
            content = json.loads(file.read())
    except ValueError:  # truncated by a kill on a file system without atomic renames
        return None
    return content if isinstance(content, dict) else None


def checksum(path: str | os.PathLike[str], files: FileSystem = LOCAL) -> dict[str, Any]:
    """Size and SHA-256 of a file: {"bytes": ..., "sha256": ...}."""
    digest, count = hashlib.sha256(), 0
    with files.open(os.fspath(path), "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
            count += len(part)
    return {"bytes": count, "sha256": digest.hexdigest()}
