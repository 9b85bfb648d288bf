"""Weight files: every format, each way in which one does not fit, and the converting command."""

import json
import pickle
import struct
from pathlib import Path

import drawn
import flax.serialization
import h5py
import jax
import ml_dtypes
import numpy as np
import pytest

from phenaki.errors import UserError
from phenaki.features import tensor_files, torch_names, vgg, weights

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED_HEADS = Path(__file__).parents[2] / "shared" / "data" / "lpips" / "lpips_v0.1_vgg_lin.pth"
ARRAYS = {"a/kernel": drawn.uniform(0, (2, 3)), "a/bias": np.arange(3), "b": np.float32(2.5)}


def write_safetensors(path, arrays, types):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in arrays.items():
        offsets = [len(data), len(data) + value.nbytes]
        header[name] = dict(dtype=types[name], shape=list(value.shape), data_offsets=offsets)
        data += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value


def write_msgpack(path, arrays):
    path.write_bytes(flax.serialization.msgpack_serialize(torch_names.unflatten(arrays)))


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".npz", lambda path, arrays: np.savez(path, **arrays)),
        (".h5", write_h5),
        (".flax", write_msgpack),
        (".msgpack", write_msgpack),
    ],
)
def test_formats(tmp_path, suffix, write):
    path = tmp_path / f"arrays{suffix}"
    write(path, ARRAYS)
    arrays = tensor_files.read(path)
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], value)


def test_safetensors(tmp_path):
    half = drawn.uniform(1, (4, 1)).astype(ml_dtypes.bfloat16)
    arrays = {"x.weight": drawn.uniform(0, (2, 3)), "y": half, "n": np.arange(5), "0": np.ones(())}
    types = {"x.weight": "F32", "y": "BF16", "n": "I64", "0": "F64"}
    write_safetensors(tmp_path / "x.safetensors", arrays, types)
    read = tensor_files.read(tmp_path / "x.safetensors")
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


@pytest.mark.parametrize("name", ["tensors.pth", "tensors_old.pth"])
def test_pytorch_without_pytorch(name):
    read = tensor_files.read(GOLDEN / name)
    base = np.arange(24).reshape(4, 6)
    expected = {
        "float": base.astype(np.float32) / np.float32(7),
        "half": (base.astype(np.float32) / np.float32(7)).astype(np.float16),
        "bfloat": (base.astype(np.float32) / np.float32(7)).astype(ml_dtypes.bfloat16),
        "long": base - 12,
        "bool": base % 3 == 0,
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "part": base[1:3, ::2],
        "parameter": base.T.astype(np.float32) / np.float32(3),
    }
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


def test_torchscript_without_pytorch():
    read = tensor_files.read(GOLDEN / "tensors_script.pt")
    weight = (np.arange(24).reshape(4, 6) / np.float32(5)).astype(np.float16)
    assert read.keys() == {"inner.weight", "steps"}
    np.testing.assert_array_equal(read["inner.weight"], weight)
    np.testing.assert_array_equal(read["steps"], [3, 1])


class Trap:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_code_in_a_file_does_not_run(tmp_path, suffix):
    target = tmp_path / "touched"
    path = tmp_path / f"trap{suffix}"
    if suffix == ".pth":
        path.write_bytes(pickle.dumps(Trap(target), protocol=2))
    else:
        np.savez(path, x=np.array([Trap(target)], object))
    with pytest.raises(UserError, match=rf"trap\{suffix}"):
        tensor_files.read(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", tensor_files.READERS)
def test_damaged_files_are_named(tmp_path, suffix):
    for content in (
        b"",
        b"neither tensors nor a header",
        (GOLDEN / "tensors_old.pth").read_bytes()[:900],
    ):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"broken\{suffix}: is no \{suffix} file of arrays"):
            tensor_files.read(path)


def test_a_cut_zip_is_named(tmp_path):
    path = tmp_path / "cut.pth"
    path.write_bytes((GOLDEN / "tensors.pth").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cut.pth: is no .pth file of arrays"):
        tensor_files.read(path)


def test_absent_files_and_unknown_suffixes_are_named(tmp_path):
    with pytest.raises(UserError, match="none.pth: no such file"):
        tensor_files.read(tmp_path / "none.pth")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(UserError, match=r"weights.bin: its suffix must be one of .pt, .pth, "):
        tensor_files.read(tmp_path / "weights.bin")


@pytest.fixture
def heads_file(tmp_path):
    """Drawn LPIPS heads by the names of the public file."""
    leaves = drawn.params(weights.shapes("lpips_vgg"))
    np.savez(tmp_path / "heads.npz", **drawn.to_torch(leaves, vgg.head_torch_name))
    return tmp_path / "heads.npz"


def test_a_missing_network_is_one_line_with_the_way_to_it(tmp_path):
    with pytest.raises(UserError) as error:
        weights.load("vgg16", tmp_path)
    assert str(error.value) == (
        f"{tmp_path}/vgg16.npz: is missing. Get vgg16-397923af.pth (torchvision's, "
        "https://download.pytorch.org/models/vgg16-397923af.pth), then run: python "
        "scripts/convert_weights.py --network=vgg16 --input=vgg16-397923af.pth "
        f"--output={tmp_path}"
    )


def test_an_unknown_network_names_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"'vgg19' must be one of vgg16, .* did you mean vgg16"):
        weights.load("vgg19", tmp_path)


def test_what_was_converted_loads(tmp_path, heads_file):
    written = weights.convert("lpips_vgg", heads_file, tmp_path / "new" / "folder")
    params = weights.load("lpips_vgg", written.parent)
    expected = vgg.convert_heads(tensor_files.read(heads_file))
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("lin2/kernel"), "lpips_vgg.npz: array 'lin2/kernel' is missing"),
        (lambda a: a.update(more=np.ones(1)), "lpips_vgg.npz: array 'more' is unexpected"),
        (
            lambda a: a.update({"lin0/kernel": np.ones((1, 1, 3, 1))}),
            r"'lin0/kernel' has shape \(1, 1, 3, 1\), not \(1, 1, 64, 1\)",
        ),
    ],
)
def test_converted_files_are_checked(tmp_path, change, message):
    arrays = drawn.params(weights.shapes("lpips_vgg"))
    change(arrays)
    np.savez(tmp_path / "lpips_vgg.npz", **arrays)
    with pytest.raises(UserError, match=message):
        weights.load("lpips_vgg", tmp_path)


@pytest.mark.parametrize("name", weights.NETWORKS)
def test_another_networks_file_is_refused_and_nothing_written(tmp_path, name):
    np.savez(tmp_path / "other.npz", **{"x.weight": np.ones((2, 2))})
    file = weights.NETWORKS[name].file
    with pytest.raises(UserError, match=rf"other.npz: .*is no {name} \({file}\): .* is missing"):
        weights.convert(name, tmp_path / "other.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_random_parameters_have_the_networks_shapes_and_repeat():
    for name in ("vgg16", "lpips_vgg"):
        leaves = torch_names.flatten(weights.random(name, seed=0))
        assert {path: leaf.shape for path, leaf in leaves.items()} == weights.shapes(name)
    heads = [weights.random("lpips_vgg", seed)["lin4"]["kernel"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(heads[0], heads[1])
    assert np.any(heads[0] != heads[2])
    assert (heads[0] >= 0).all()  # a distance


@pytest.mark.parametrize("name", weights.NETWORKS)
def test_checksums_agree_with_file_names(name):
    network = weights.NETWORKS[name]
    assert set(network.sha256) <= set("0123456789abcdef")
    for digits in ("397923af", "6726825d"):
        if digits in network.file:  # the publishers' convention
            assert network.sha256 == digits


@pytest.mark.skipif(not PUBLISHED_HEADS.exists(), reason="the published LPIPS heads are not here")
def test_the_published_heads():
    assert weights.is_published("lpips_vgg", PUBLISHED_HEADS)
    heads = torch_names.flatten(vgg.convert_heads(tensor_files.read(PUBLISHED_HEADS)))
    assert {path: leaf.shape for path, leaf in heads.items()} == weights.shapes("lpips_vgg")
    assert all((leaf >= 0).all() and leaf.any() for leaf in heads.values())


def test_script(tmp_path, heads_file, run_script):
    def run(*arguments):
        result = run_script("scripts/convert_weights.py", *arguments)
        return result.returncode, result.stdout, result.stderr

    code, listed, _ = run("--list")
    assert code == 0
    assert [line.split()[0] for line in listed.splitlines()] == list(weights.NETWORKS)
    given = ("--network=lpips_vgg", f"--input={heads_file}")
    assert run(*given) == (2, "", "error: --output is required (or --list)\n")
    code, printed, _ = run(*given, f"--output={tmp_path / 'npz'}")
    assert code == 0
    assert printed.splitlines() == [
        f"note: {heads_file} fits, but is not the published vgg.pth "
        "(its sha256 starts with a78928a0)",
        f"written: {tmp_path}/npz/lpips_vgg.npz",
    ]
    given = ("--network=vgg16", f"--input={heads_file}", f"--output={tmp_path / 'npz'}")
    code, printed, error = run(*given)
    assert (code, printed) == (2, "")
    assert error == (
        f"error: {heads_file}: is no vgg16 (vgg16-397923af.pth): tensor 'features.0.bias' is "
        "missing.\n"
    )
