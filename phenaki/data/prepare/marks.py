"""Files that mark others as whole, on any file system that TensorFlow reads."""

import hashlib
import json
import os
from typing import Any

from phenaki.data import records, tensorflow
from phenaki.data.prepare import shards

DONE = ".done"
CHUNK = 2**24  # bytes hashed at a time


def done(path: str, origin: str, digest: str) -> bool:
    """Whether `path` is whole and was made from content `digest` by `origin`."""
    noted = mark(path)
    return (
        noted is not None
        and noted["origin"] == origin
        and noted["input"] == digest
        and size(path) == noted["bytes"]
        and size(path + records.LENGTHS) >= 0
    )


def mark(path: str) -> dict[str, Any] | None:
    """What the mark beside `path` says; None without one."""
    gfile = tensorflow.tensorflow().io.gfile
    if not gfile.exists(path + DONE):
        return None
    with gfile.GFile(path + DONE) as beside:
        try:
            return json.loads(beside.read())
        except ValueError:
            return None  # cut short: as if it were not there


def size(path: str) -> int:
    """Bytes of a file; -1 where there is none."""
    gfile = tensorflow.tensorflow().io.gfile
    return gfile.stat(path).length if gfile.exists(path) else -1


def checksum(path: str) -> dict[str, Any]:
    """Bytes and SHA-256 of a file."""
    digest, count = hashlib.sha256(), 0
    with tensorflow.tensorflow().io.gfile.GFile(path, "rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
            count += len(part)
    return {"bytes": count, "sha256": digest.hexdigest()}


def noted_digests(directory: str) -> dict[str, str]:
    """SHA-256 by file name, where preparing a data set noted them."""
    path, gfile = os.path.join(directory, shards.MANIFEST), tensorflow.tensorflow().io.gfile
    if not gfile.exists(path):
        return {}
    with gfile.GFile(path) as file:
        noted = json.loads(file.read())["files"]
    sizes = records.side_by_side(lambda name: size(os.path.join(directory, name)), noted)
    return {
        name: entry["sha256"]
        for (name, entry), found in zip(noted.items(), sizes, strict=True)
        if found == entry["bytes"]
    }


def write_json(path: str, content: dict[str, Any]) -> None:
    """Writes a file that is there whole or not at all."""
    gfile = tensorflow.tensorflow().io.gfile
    with gfile.GFile(f"{path}.part", "w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
    gfile.rename(f"{path}.part", path, overwrite=True)
