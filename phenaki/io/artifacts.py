"""Atomic file writes and completion markers, on local disks and in buckets.

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
from typing import Any

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import PathLike

CHUNK = 2**24  # bytes hashed at a time


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """Yields a temporary local path that replaces `path` when the block ends without an error.

    The temporary name is unique: processes that write the same file at the same time each replace
    it with a complete one. An object in a bucket is uploaded from the disk of this machine.
    """
    target = paths.path(path)
    if not isinstance(target, Path):
        with paths.written(target) as partial:
            yield partial
        return
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        os.replace(partial, target)
    except BaseException as error:
        with contextlib.suppress(Exception):  # the first error is the one to see
            os.remove(partial)
        # A full disk names no file, and the user does not know the temporary one.
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise


def write_json(path: PathLike, content: Any, **options: Any) -> None:
    """Writes `content` and a newline atomically; `options` are those of `json.dumps`."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, **options) + "\n", encoding="utf-8")


def mark(marker: PathLike, key: dict[str, Any], **options: Any) -> None:
    """Writes the completion marker of a file that is complete by now.

    Args:
        marker: path of the marker, which lies next to what it describes.
        key: what the file was made from, and whatever its reader wants to know.
    """
    write_json(marker, key, **options)


def parsed(text: str) -> Any:
    """The content of JSON.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_dict(path: PathLike) -> dict[str, Any]:
    """The dictionary in a JSON file.

    Raises:
        UserError: it is damaged, or holds something else.
    """
    try:
        content = parsed(paths.path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: is cut short or damaged ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a dictionary, not a {type(content).__name__}.")
    return content


def marked(marker: PathLike) -> dict[str, Any] | None:
    """The `key` of a completion marker; None if it is absent or not valid JSON."""
    if not paths.is_file(marker):
        return None
    try:
        content = parsed(paths.path(marker).read_text(encoding="utf-8"))
    except ValueError:  # truncated by a kill on a file system without atomic renames
        return None
    return content if isinstance(content, dict) else None


def checksum(path: PathLike) -> dict[str, Any]:
    """Size and SHA-256 of a file: {"bytes": ..., "sha256": ...}."""
    digest, count = hashlib.sha256(), 0
    with paths.path(path).open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
            count += len(part)
    return {"bytes": count, "sha256": digest.hexdigest()}
