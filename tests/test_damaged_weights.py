"""Weight files with flipped, cut and wrong bytes: refused in one line, or what they were."""

import collections
import io
import json
import pickle
import random
import struct
import sys
import types
import zipfile
from pathlib import Path

import drawn
import flax.serialization
import h5py
import msgpack
import numpy as np
import pytest

from phenaki.errors import UserError
from phenaki.features import pickles, tensor_files
from phenaki.io import npz

GOLDEN = Path(__file__).parent / "golden"


def refusal(path, content=None) -> str:
    """The message; no file makes another error."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        tensor_files.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# PyTorch


class Storage:
    """Of four numbers."""


class Tensor(collections.namedtuple("Tensor", "offset shape strides")):
    """As torch writes it."""


def write_torch(path, offset, shape, strides, count=4, numbers=(1, 2, 3, 4)):
    """A .pt of one tensor of the storage `numbers`, which the pickle says has `count`."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2

    class Reduced:
        def __reduce__(self):
            arguments = (Storage(), offset, shape, strides, False, collections.OrderedDict())
            return utils._rebuild_tensor_v2, arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            kind = torch.FloatStorage
            return ("storage", kind, "0", "cpu", count) if type(item) is Storage else None

    kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("archive/data.pkl", "w") as file:
                Pickler(file, 2).dump({"w": Reduced()})
            archive.writestr("archive/data/0", np.array(numbers, "<f4").tobytes())
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2, 2), (1, -1)),  # before the storage
        (3, (2, 2), (1, -1)),  # backwards, within it: PyTorch has no such tensor
        (0, (2, 2), (2**40, 1)),
        (-1, (2,), (1,)),
        (3, (2,), (1,)),
        (5, (1,), (1,)),
        (0, (5,), (1,)),
        (0, (2, 2), (1,)),
        (0, (2.0, 2), (2, 1)),
        (0, (-2, -2), (2, 1)),
        ("0", (2,), (1,)),
        (0, (10**12,), (0,)),  # terabytes from sixteen bytes
        (2**70, (0,), (1,)),
    ],
)  # fmt: skip
def test_a_tensor_of_pytorch_lies_in_its_storage(tmp_path, offset, shape, strides):
    path = tmp_path / "w.pt"
    write_torch(path, offset, shape, strides)
    if 0 in shape:
        assert tensor_files.read(path)["w"].shape == shape
    else:
        refusal(path)


def test_views_within_a_storage_are_read(tmp_path):
    path = tmp_path / "w.pt"
    write_torch(path, 1, (3, 2), (1, 0))  # `expand`
    np.testing.assert_array_equal(tensor_files.read(path)["w"], [[2, 2], [3, 3], [4, 4]])
    write_torch(path, 0, (2, 2), (1, 2))
    np.testing.assert_array_equal(tensor_files.read(path)["w"], [[1, 3], [2, 4]])


@pytest.mark.parametrize("count", [3, 5, -4, 2**60, 4.0, "4"])
def test_a_storage_has_the_numbers_it_says(tmp_path, count):
    write_torch(tmp_path / "w.pt", 0, (2,), (1,), count)
    refusal(tmp_path / "w.pt")


def test_a_pickle_may_not_number_objects_it_does_not_have():
    """Python's unpickler would take 32 GB for these nine bytes."""
    with pytest.raises(pickle.UnpicklingError, match="object 4294967295 of 3"):
        pickles.checked(io.BytesIO(b"\x80\x02]r\xff\xff\xff\xff."))
    for protocol in range(5):
        content = pickle.dumps({"a": [1, "x" * 300, (2.5,)], "b": list(range(999))}, protocol)
        assert pickles.checked(io.BytesIO(content + b"more")) == content


# NumPy


def archive(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_an_npz_is_what_numpy_reads(tmp_path):
    arrays = {
        "plain": drawn.uniform(0, (3, 5)),
        "columns": np.asfortranarray(drawn.uniform(1, (3, 5))),
        "empty": np.zeros((0, 3), np.int8),
        "scalar": np.float64(3),
        "half": np.arange(5, dtype=np.float16),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = npz.read(tmp_path / "a.npz")
        assert read.keys() == arrays.keys()
        for name, value in arrays.items():
            assert read[name].dtype == value.dtype
            np.testing.assert_array_equal(read[name], value)
        assert npz.read(tmp_path / "a.npz", {"half", "none"}).keys() == {"half"}


def test_headers_of_an_npz_that_lie(tmp_path):
    path = tmp_path / "a.npz"
    for shape in ("(2, 2)", "(10**12,)", "(99999999999,)", "(-4,)", "(5,)"):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(24)
        with zipfile.ZipFile(path, "w") as made:
            made.writestr("a.npy", member)
        refusal(path)
    locked = bytearray(archive(a=np.arange(4.0)))
    locked[6] |= 1
    locked[locked.find(b"PK\1\2") + 8] |= 1
    assert "encrypted" in refusal(path, locked)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.npy", b"\x93NUMPY\x09\x00")
    assert "version" in refusal(path)


# safetensors, msgpack, HDF5


def safetensors(header: object, data: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(4,), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(b"[1]"),
        safetensors(b"[" * 100_000),
        safetensors({"a": 1}),
        safetensors({"a": entry(shape=(-1,))}),
        safetensors({"a": entry(shape=(5,))}),
        safetensors({"a": entry(shape=(4.0,))}),
        safetensors({"a": entry(offsets=(-16, 0))}),
        safetensors({"a": entry(offsets=(0, 2**60), shape=(2**58,))}),
        safetensors({"a": entry(), "b": entry()}),  # both the same bytes
        safetensors({"a": entry(shape=(3,), offsets=(0, 12))}),  # four belong to nobody
        safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2)),
        struct.pack("<Q", 2**63) + b"{}",
        safetensors({}, b"x"),
    ],
)
def test_headers_of_safetensors_that_lie(tmp_path, content):
    refusal(tmp_path / "a.safetensors", content)


def test_safetensors_of_no_tensors_are_none(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors({"__metadata__": {"format": "np"}}, b""))
    assert tensor_files.read(tmp_path / "a.safetensors") == {}


def extension(shape, dtype="float32", numbers=bytes(16)):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, numbers)))


@pytest.mark.parametrize(
    "tree",
    [
        [1, 2],
        3,
        {"a": None},
        {"a": "text"},
        {"a": extension((-1, 2))},
        {"a": extension((5,))},
        {"a": extension((2.0, 2))},
        {"a": extension((4,), "object")},
        {"a": extension((4,), "nonsense")},
        {"a": extension((4,), numbers=bytes(15))},
        {"a": msgpack.ExtType(9, b"")},
        {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {}}},
    ],
)
def test_msgpack_trees_that_lie(tmp_path, tree):
    refusal(tmp_path / "a.msgpack", msgpack.packb(tree))


def test_hdf5_gives_no_numbers_that_the_file_does_not_have(tmp_path):
    path = tmp_path / "a.h5"
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    with h5py.File(path, "w") as file:
        file.create_dataset("outside", (4,), "<f4", external=[(tmp_path / "secret", 0, 16)])
    assert "another file" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("never_written", (10**12,), "<f4", chunks=(1000,))
    assert "is not whole" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("whole", data=np.arange(9.0), chunks=(2,), compression="gzip")
        file.create_dataset("empty", (0, 3), "<f4")
        file["text"] = "left out"
    assert tensor_files.read(path).keys() == {"whole", "empty"}


# Any byte


def formats(directory: Path) -> dict[str, Path]:
    """A file of every format, with the same arrays."""
    arrays = {"a/kernel": drawn.uniform(0, (4, 6)), "b": np.arange(5, dtype=np.int32)}
    made = {suffix: directory / f"a{suffix}" for suffix in tensor_files.READERS}
    np.savez(made[".npz"], **arrays)
    tree = {"a": {"kernel": arrays["a/kernel"]}, "b": arrays["b"]}
    for suffix in (".flax", ".msgpack"):
        made[suffix].write_bytes(flax.serialization.msgpack_serialize(tree))
    kernel = entry((4, 6), (0, 96))
    header = {"a/kernel": kernel, "b": entry((5,), (96, 116), "I32")}
    data = b"".join(array.tobytes() for array in arrays.values())
    made[".safetensors"].write_bytes(safetensors(header, data))
    with h5py.File(made[".h5"], "w") as file:
        for name, value in arrays.items():
            file[name] = value
    made[".pth"].write_bytes((GOLDEN / "tensors.pth").read_bytes())
    made[".pt"].write_bytes((GOLDEN / "tensors_old.pth").read_bytes())
    return made


CHECKED = (".npz", ".pth")  # with a CRC of every number


@pytest.mark.parametrize("suffix", [s for s in tensor_files.READERS if s != ".h5"])
def test_damage_anywhere_is_refused_or_harmless(tmp_path, suffix):
    path = formats(tmp_path)[suffix]
    whole, content = tensor_files.read(path), path.read_bytes()
    chance = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content)
        at = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                damaged[at] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[at:]
            case 2:
                damaged[at : at + 8] = chance.randbytes(8)
        path.write_bytes(damaged)
        try:
            read = tensor_files.read(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            continue
        assert sum(array.nbytes for array in read.values()) <= 1024 * len(content)
        if suffix in CHECKED:
            assert read.keys() == whole.keys()
            for name, value in whole.items():
                np.testing.assert_array_equal(read[name], value)
