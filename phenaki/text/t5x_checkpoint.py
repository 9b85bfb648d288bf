"""Reader of encoders in T5X checkpoints, local or gs://bucket/path.

A checkpoint is a directory. Its file `checkpoint` is a msgpack tree of the training state, whose
leaves are arrays or references to Zarr stores in the same directory:
    T5X           {"driver": "zarr", "kvstore": {"path": "target.encoder.../"}, "metadata": ...}
    T5X on Orbax  "PLACEHOLDER://target.encoder...", file and stores in the subdirectory `state`;
                  newer Orbax lists the stores in `_METADATA` (JSON) instead, and keeps them in one
                  OCDBT database (manifest.ocdbt), in Zarr's format 2 or 3
The oldest checkpoints are one msgpack file. Only the encoder and its token embedder are read, and
nothing is executed: neither pickles nor the imports of `config.gin`.
"""

import contextlib
import io
import json
import math
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import tensorstore as ts

from phenaki.errors import UserError
from phenaki.io import msgpack_arrays
from phenaki.text import t5x_gin

WANTED = ("encoder", "token_embedder")
AROUND = ("optimizer", "_optimizer", "target")  # T5X's own, early Orbax's, everybody's
PLACEHOLDER = "PLACEHOLDER://"
FILE, METADATA, GIN = "checkpoint", "_METADATA", "config.gin"
OCDBT = "manifest.ocdbt"
_ABOUT = re.compile(rb"\.|zarr\.json$")  # of the files of a store those without numbers
MAX_MAP, MAX_LIST = 2**20, 2**16  # entries of a dictionary, of a list


def exists(path: str) -> bool:
    """Whether there is anything at `path`, which may be a file of the oldest kind."""
    if path.startswith("gs://"):
        return any(_file(home, name) for home in _homes(path) for name in (FILE, METADATA))
    return Path(path).exists()


def open_arrays(path: str) -> dict[str, Any]:
    """Every array of the encoder by its name in the file; stores are opened, but not read.

    Raises UserError for a missing or damaged file or store, or a checkpoint without an encoder.
    """
    home, tree = _tree(path)
    try:
        arrays = dict(_leaves(home, tree))
    except UserError:
        raise
    except Exception as error:  # the libraries raise anything on a damaged file
        raise _damaged(path, error) from error
    if not any(name.startswith("encoder/") for name in arrays):
        raise UserError(
            f"{path}: holds no encoder (is it a decoder-only model?); give a checkpoint of T5 v1.1."
        )
    return arrays


def convert(name: str, array: Any) -> dict[str, Any]:
    """An array by the paths of T5Encoder: scanned layers split, heads joined into one axis.

    Scanned layers are stacked along axis 1 of every array: T5X's `param_scan_axis`.
    """
    if match := re.fullmatch(r"encoder/(?:encoder|layers)/(.+)", name):
        parts: dict[str, Any] = {}
        for index in range(array.shape[1]):
            parts |= convert(f"encoder/layers_{index}/{match[1]}", array[:, index])
        return parts
    if name.endswith("attention/out/kernel"):
        array = array.reshape(-1, array.shape[-1])
    elif name.endswith("/kernel"):
        array = array.reshape(array.shape[0], -1)
    return {name: array}


def gin_sizes(path: str) -> dict[str, int]:
    """The sizes in a checkpoint's `config.gin`, as fields of T5Encoder; {} without such a file.

    The file is in the checkpoint's directory or the parent's. Raises UserError where it cannot be
    parsed, or gives another MLP than that of T5 v1.1.
    """
    for home in dict.fromkeys(folder for h in _homes(path) for folder in (h, _parent(h))):
        with contextlib.ExitStack() as stack:
            if file := _file(home, GIN):
                text = stack.enter_context(file).read().decode(errors="replace")
                return t5x_gin.sizes(text, posixpath.join(home, GIN))
    return {}


def kvstore(directory: str, name: str = "") -> dict[str, str]:
    """TensorStore's specification of store `name` in a directory, local or in a bucket."""
    name = f"{name.strip('/')}/" if name else ""
    if match := re.fullmatch(r"gs://([^/]+)/?(.*)", directory):
        folder = match[2].rstrip("/")
        return {"driver": "gcs", "bucket": match[1], "path": f"{folder}/{name}".lstrip("/")}
    return {"driver": "file", "path": f"{Path(directory).resolve()}/{name}"}


def _homes(path: str) -> tuple[str, ...]:
    """The directories that may hold the file of the checkpoint at `path`."""
    path = path.rstrip("/")
    if not path.startswith("gs://") and Path(path).is_file():
        return (_parent(path),)
    return (path, f"{path}/state", f"{path}/default")


def _parent(directory: str) -> str:
    if directory.startswith("gs://"):
        return posixpath.dirname(directory)
    return str(Path(directory).resolve().parent)


def _tree(path: str) -> tuple[str, dict[str, Any]]:
    """(directory of the stores, {"encoder": ..., "token_embedder": ...} as in the file)."""
    try:
        for home in _homes(path):
            whole = not path.startswith("gs://") and Path(path).is_file()
            if file := _file(home, Path(path).name if whole else FILE):
                with file:
                    unpacker = _unpacker(file)
                    tree = _select(unpacker)
                    if unpacker.read_bytes(1):
                        raise ValueError("something follows the tree")
                    return home, tree
            if file := _file(home, METADATA):
                with file:
                    return home, _listed(json.load(file))
    except Exception as error:  # the libraries raise anything on a damaged file
        raise _damaged(path, error) from error
    inside = sorted(Path(path).glob(f"{FILE}_*")) if Path(path).is_dir() else []
    hint = f"; give {inside[-1]}" if inside else ""
    raise UserError(f"{path}: is no T5X checkpoint: it has no file `{FILE}`{hint}.")


def _damaged(path: str, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{path}: is no T5X checkpoint, or is cut short or damaged ({why}).")


def _file(directory: str, name: str) -> io.BufferedIOBase | None:
    """A file of a directory, opened; None if it is missing."""
    if not directory.startswith("gs://"):
        path = Path(directory, name)
        return path.open("rb") if path.is_file() else None
    found = ts.KvStore.open(kvstore(directory)).result().read(name).result()
    return io.BytesIO(found.value) if found.state == "value" else None


def _unpacker(file: io.BufferedIOBase) -> msgpack.Unpacker:
    return msgpack.Unpacker(
        file,
        raw=False,
        strict_map_key=False,
        max_buffer_size=0,
        max_map_len=MAX_MAP,
        max_array_len=MAX_LIST,
        ext_hook=msgpack_arrays.array_of,
    )


def _select(unpacker: msgpack.Unpacker) -> dict[str, Any]:
    """The parts of a tree in `WANTED`; decoder and optimiser state are skipped."""
    tree: dict[str, Any] = {}
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        if name in AROUND:
            tree |= _select(unpacker)
        elif name in WANTED:
            tree[name] = unpacker.unpack()
        else:
            unpacker.skip()
    return tree


def _listed(metadata: dict[str, Any]) -> dict[str, Any]:
    """The tree that Orbax's `_METADATA` lists, with placeholders as in its older files."""
    tree: dict[str, Any] = {}
    for entry in metadata["tree_metadata"].values():
        keys = [key["key"] for key in entry["key_metadata"]]
        path = keys[next((i for i, key in enumerate(keys) if key not in AROUND), 0) :]
        if path[0] in WANTED:
            node = tree
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = PLACEHOLDER + ".".join(keys)
    return tree


def _leaves(
    home: str, tree: dict[str, Any], path: str = "", form: tuple[str, bool] | None = None
) -> Iterator[tuple[str, Any]]:
    form = form or _form(home)
    for key, node in tree.items():
        name = f"{path}{key}"
        if isinstance(node, np.ndarray):
            yield name, node
        elif isinstance(node, str) and node.startswith(PLACEHOLDER):
            yield name, open_store(home, node.removeprefix(PLACEHOLDER), None, form)
        elif isinstance(node, dict) and node.get(msgpack_arrays.CHUNKED):
            yield name, msgpack_arrays.joined(node)
        elif isinstance(node, dict) and "driver" in node:
            place = node["kvstore"].get("path") or node["path"]  # the latter in old TensorStores
            yield name, open_store(home, place, node, form)
        elif isinstance(node, dict):
            yield from _leaves(home, node, f"{name}/", form)
        else:
            raise UserError(f"{home}: {name} is {type(node).__name__}, not an array.")


def open_store(
    directory: str,
    name: str,
    spec: dict[str, Any] | None = None,
    form: tuple[str, bool] | None = None,
) -> ts.TensorStore:
    """The Zarr store `name` of a directory, opened; its chunks are checked to exist, but not read.

    `spec`, the checkpoint's description of the store, is used where its `.zarray` is missing;
    `form` is the directory's `_form`.
    Raises UserError for a missing store or chunk: TensorStore itself would read zeros.
    """
    place = _place(directory, name, *(form or _form(directory)))
    where = posixpath.join(directory, name.strip("/"))
    try:
        try:
            store: Any = ts.open(place, open=True, read=True).result()
        except ValueError:
            if spec is None:
                raise
            assumed = {k: spec[k] for k in ("dtype", "metadata") if k in spec}
            store = ts.open(
                {**place, **assumed}, open=True, read=True, assume_metadata=True
            ).result()
        files = [key for key in store.kvstore.list().result() if not _ABOUT.match(key)]
    except Exception as error:
        raise UserError(f"{where}: is missing or damaged: {str(error).split(' [')[0]}") from error
    sizes = zip(store.shape, store.chunk_layout.write_chunk.shape or (), strict=True)
    chunks = math.prod(math.ceil(size / chunk) for size, chunk in sizes)
    if len(files) < chunks:
        raise UserError(f"{where}: has {len(files)} of its {chunks} files; fetch it again.")
    return store


def _form(directory: str) -> tuple[str, bool]:
    """(Zarr driver, whether all stores are in one OCDBT database) of a directory of stores."""
    metadata: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if file := _file(directory, METADATA):
            metadata = json.load(stack.enter_context(file))
        if database := _file(directory, OCDBT):
            stack.enter_context(database)
    return "zarr3" if metadata.get("use_zarr3") else "zarr", database is not None


def _place(directory: str, name: str, driver: str, in_database: bool) -> dict[str, Any]:
    """TensorStore's specification of the array `name` in a directory."""
    place: dict[str, Any] = kvstore(directory, name)
    if in_database:
        base = kvstore(directory)
        base["path"] = base["path"].rstrip("/") + "/"
        place = {"driver": "ocdbt", "base": base, "path": f"{name.strip('/')}/"}
    return {"driver": driver, "kvstore": place}
