"""Whatever the package reads back as numbers: small files of every kind, their readers, and damage.

`READERS` maps a name to `Reader`s; `damage` changes one file of a folder; `judge` reads it.
"""

import contextlib
import io
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import drawn
import flax.serialization
import h5py
import jax
import numpy as np
import optax
import t5_files
import tiny

from phenaki.data import records, tensorflow
from phenaki.errors import UserError
from phenaki.evaluation.store import Store
from phenaki.features import tensor_files
from phenaki.io import checkpoint, checkpoint_manager, npz
from phenaki.stories.generate import WindowCache
from phenaki.text import weights
from phenaki.train import state

GOLDEN = Path(__file__).parents[1] / "golden"
SECONDS, MEGABYTES = 30, 300  # of one reading, and by how much the process may grow
ARRAYS = {"a/kernel": drawn.uniform(0, (40, 6)), "b": np.arange(50, dtype=np.int32)}
PARAMS = {"tokenizer": {"dense": {"kernel": ARRAYS["a/kernel"]}, "bias": drawn.uniform(1, (30,))}}


class Reader(NamedTuple):
    """How a folder of a kind is written and read.

    Attributes:
        write: makes the content of an empty folder.
        read: (folder) -> numbers; raises `UserError` or, for caches, gives None.
        exact: whether a checksum guards every number; without, a number may be another one.
    """

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    exact: bool = True


def _file(suffix: str, write: Callable[[Path], Any], exact: bool = False) -> Reader:
    return Reader(
        lambda folder: write(folder / f"a{suffix}"),
        lambda folder: tensor_files.read(folder / f"a{suffix}"),
        exact,
    )


def _tree() -> dict[str, Any]:
    return {"a": {"kernel": ARRAYS["a/kernel"]}, "b": ARRAYS["b"]}


def _h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, value in ARRAYS.items():
            file[name] = value


def _bundle(folder: Path) -> None:
    checkpoint.save_bundle(folder, PARAMS, tiny.tokenizer_config().to_dict(), kind="tokenizer")


def _run(folder: Path) -> None:
    checkpoint.save_config(folder, tiny.tokenizer_config().to_dict())
    current = state.create(PARAMS["tokenizer"], optax.sgd(1.0))
    saved = checkpoint_manager.Checkpoints(folder)
    saved.save(1, current, {"taken": 1})
    saved.close()


def _store(folder: Path) -> Store:
    return Store(folder, "real", {}, 8, 4)


def _fill(folder: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        _store(folder).fill(lambda start, stop: {"x": drawn.uniform(start, (4, 9))}, "items")


def _records(folder: Path) -> None:
    writer = tensorflow.tensorflow().io.TFRecordWriter(str(folder / "shard"))
    lengths = []
    for number in range(20):
        writer.write(record := bytes(range(number, 2 * number + 9)))
        lengths.append(len(record))
    writer.close()
    np.save(folder / f"shard{records.LENGTHS}", np.array(lengths, np.uint32))


def _read_records(folder: Path) -> list[np.ndarray]:
    found = records.Records([folder / "shard"], [20])
    return [np.frombuffer(found[number], np.uint8) for number in range(20)]


WINDOW = "0a" * 12


def _window(folder: Path) -> None:
    frames = drawn.uniform(0, (3, 4, 4, 3)).astype(np.float32)
    WindowCache(folder).write(WINDOW, frames, np.zeros((2, 2, 2), np.int32))


def _t5(folder: Path) -> Any:
    def read(path):
        return tensor_files.read(path)

    return weights.load(str(folder / "t5"), t5_files.TINY, read)


def _t5_state() -> dict:
    return t5_files.state(t5_files.params())


READERS = {
    "npz": _file(".npz", lambda path: np.savez(path, **ARRAYS), True),
    "npz, compressed": _file(".npz", lambda path: np.savez_compressed(path, **ARRAYS), True),
    "torch": _file(".pth", lambda path: shutil.copy(GOLDEN / "tensors.pth", path), True),
    "torch, old": _file(".pt", lambda path: shutil.copy(GOLDEN / "tensors_old.pth", path)),
    "TorchScript": _file(".pt", lambda path: shutil.copy(GOLDEN / "tensors_script.pt", path), True),
    "safetensors": _file(".safetensors", lambda path: t5_files.safetensors(path, ARRAYS)),
    "HDF5": _file(".h5", _h5),
    "msgpack": _file(
        ".msgpack", lambda path: path.write_bytes(flax.serialization.msgpack_serialize(_tree()))
    ),
    "T5X": Reader(lambda folder: t5_files.zarr(folder / "t5", _t5_state(), "file"), _t5, False),
    "T5X, one file": Reader(lambda folder: t5_files.inline(folder / "t5", _t5_state()), _t5, False),
    "T5X on Orbax": Reader(
        lambda folder: t5_files.orbax_of_today(folder / "t5", _t5_state()), _t5, False
    ),
    "bundle": Reader(_bundle, lambda folder: checkpoint.load_bundle(folder)[0]),
    "shared model": Reader(
        lambda folder: checkpoint.save_shared(folder, PARAMS, tiny.tokenizer_config().to_dict()),
        lambda folder: checkpoint.load_bundle(folder)[0],
    ),
    "run": Reader(_run, lambda folder: checkpoint.load_run(folder)[0]),
    "window": Reader(_window, lambda folder: WindowCache(folder).read(WINDOW)),
    "evaluation store": Reader(_fill, lambda folder: _store(folder).array("x")),
    "records": Reader(_records, _read_records),
    "weights": Reader(
        lambda folder: np.savez(folder / "w.npz", **ARRAYS),
        lambda folder: npz_of(folder / "w.npz"),
    ),
}


def npz_of(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an archive, as `phenaki.features.weights` reads it."""
    arrays = tensor_files.read(path)
    assert npz.read(path).keys() == arrays.keys()
    return arrays


def damage(folder: Path, chance: random.Random) -> str:
    """Changes one file of `folder`; says how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    file = chance.choice(files)
    content = bytearray(file.read_bytes())
    at = chance.randrange(len(content))
    end = min(len(content), at + chance.choice((1, 4, 16, 200)))
    kind = chance.choice(
        ("bit", "byte", "random", "cut", "deleted", "inserted", "twice", "huge", "zeros", "gone",
         "empty", "longer")
    )  # fmt: skip
    match kind:
        case "bit":
            content[at] ^= 1 << chance.randrange(8)
        case "byte":
            content[at] = chance.choice((0, 1, 127, 128, 255))
        case "random":
            content[at:end] = chance.randbytes(end - at)
        case "cut":
            del content[at:]
        case "deleted":
            del content[at:end]
        case "inserted":
            content[at:at] = chance.randbytes(end - at)
        case "twice":
            content[at:at] = content[at:end]
        case "huge":
            width = chance.choice((4, 8))
            content[at : at + width] = chance.choice((b"\xff", b"\x7f", b"\x80")) * width
        case "zeros":
            content[at:end] = bytes(end - at)
        case "empty":
            content.clear()
        case "longer":
            content += chance.randbytes(64)
    file.unlink() if kind == "gone" else file.write_bytes(content)
    return f"{file.relative_to(folder)}: {kind} at {at}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(number, frame):
        raise TimeoutError(f"still reads after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(reader: Reader, folder: Path, whole: Any) -> tuple[str, str]:
    """("refused", "same", "another number" or "wrong", details) of reading a damaged folder."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _limited():
            found = reader.read(folder)
    except UserError as error:
        line = str(error)
        return ("wrong", f"several lines: {line}") if "\n" in line else ("refused", line)
    except BaseException as error:
        return "wrong", f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MEGABYTES:
        return "wrong", f"{grown:.0f} MB more"
    if found is None:
        return "refused", ""
    if _equal(found, whole):
        return "same", ""
    return ("wrong", "other numbers, in silence") if reader.exact else ("another number", "")


def _equal(one: Any, other: Any) -> bool:
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return jax.tree.all(
        jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), one, other)
    )


def campaign(name: str, work: Path, count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(damage, verdict, details) of `count` damaged copies of the folder of reader `name`."""
    reader, chance = READERS[name], random.Random(f"{name} {seed}")
    (whole := work / "whole").mkdir(parents=True)
    reader.write(whole)
    numbers = reader.read(whole)
    for _ in range(count):
        copy = shutil.copytree(whole, work / "copy")
        how = damage(copy, chance)
        yield how, *judge(reader, copy, numbers)
        shutil.rmtree(copy)
