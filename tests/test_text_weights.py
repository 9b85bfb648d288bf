"""Pre-trained T5 encoders: sizes, T5X's checkpoints of every age, safetensors, their mistakes."""

import functools
import math
import shutil
from pathlib import Path

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_files as files
from t5_files import TINY

from configs import maskgit
from phenaki import sharding
from phenaki.errors import UserError
from phenaki.features import tensor_files, torch_names
from phenaki.io import msgpack_arrays
from phenaki.models import factory
from phenaki.text import hugging_face, sizes, t5x_checkpoint, weights

SHARED = Path(__file__).parents[1] / "../shared/data/t5"
SCANNED = TINY.clone(relpos_per_layer=True)
ENCODER_PARAMETERS = dict(
    t5_1_1_small=35_332_800,
    t5_1_1_base=109_628_544,
    t5_1_1_large=341_231_104,
    t5_1_1_xl=1_223_527_424,
    t5_1_1_xxl=4_762_310_656,
)


def load(path, encoder=TINY):
    return weights.load(str(path), encoder, tensor_files.read)


def error_of(path, encoder=TINY) -> str:
    with pytest.raises(UserError) as caught:
        load(path, encoder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def flat(params) -> dict:
    return torch_names.flatten(params)


# --- formats


def legacy(directory, tree):
    whole = files.inline(directory, tree) / "checkpoint"
    return whole.rename(directory / "t5.checkpoint_0")


def gfile_without_metadata(directory, tree):
    return files.zarr(directory, tree, metadata=False)


def gcs(directory, tree):
    return files.zarr(directory, tree, driver="gcs")


def early_orbax(directory, tree):
    """The whole TrainState, and no subdirectory."""
    files.orbax(directory, tree)
    whole = flax.serialization.msgpack_restore((directory / "state/checkpoint").read_bytes())
    content = flax.serialization.msgpack_serialize({"_optimizer": whole, "params_axes": None})
    (directory / "checkpoint").write_bytes(content)
    for store in (directory / "state").iterdir():
        if store.is_dir():
            store.rename(directory / store.name)
    shutil.rmtree(directory / "state")
    return directory


T5X = (
    files.inline,
    legacy,
    files.zarr,
    gcs,
    gfile_without_metadata,
    early_orbax,
    files.orbax,
    files.orbax_of_today,
)


def assert_same(params, expected):
    params = flat(params)
    assert params.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(params[path], array, err_msg=path)


@pytest.mark.parametrize("write", T5X, ids=lambda write: write.__name__)
def test_a_t5x_checkpoint_gives_back_the_encoder(write, tmp_path):
    expected = files.params()
    path = write(tmp_path / "checkpoint_5", files.state(expected))
    assert_same(load(path), expected)
    jax.eval_shape(TINY.apply, {"params": load(path)}, jnp.ones((1, 4), jnp.int32))


@pytest.mark.parametrize("write", (files.inline, files.zarr, files.orbax))
@pytest.mark.parametrize("name", ("encoder", "layers"))  # of the stack, now and in 2022
def test_scanned_layers_are_taken_apart(write, name, tmp_path):
    expected = files.params(SCANNED)
    stacked = files.scanned(expected, name)
    query = stacked[f"encoder/{name}/attention/query/kernel"]
    assert query.shape == (TINY.width, TINY.layers, TINY.heads, TINY.head_dim)
    path = write(tmp_path / "checkpoint_5", files.state(stacked))
    assert_same(load(path, SCANNED), expected)


def test_biases_of_each_layer_that_agree_are_shared_ones():
    params = files.params()
    biases = params["encoder/relpos_bias/rel_embedding"]
    own = {path: a for path, a in params.items() if "relpos" not in path}
    own |= {f"encoder/layers_{i}/relpos_bias/rel_embedding": biases for i in range(TINY.layers)}
    ids = jnp.asarray(np.random.default_rng(1).integers(1, TINY.vocab_size, (2, 30)))
    shared = jax.jit(TINY.apply)({"params": files.nested(params)}, ids)
    apart = jax.jit(SCANNED.apply)
    np.testing.assert_allclose(apart({"params": files.nested(own)}, ids), shared, atol=1e-5)
    own["encoder/layers_1/relpos_bias/rel_embedding"] = -biases
    assert np.abs(apart({"params": files.nested(own)}, ids) - shared).max() > 1e-2


def test_arrays_that_flax_breaks_up_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 100)
    expected = files.params()
    path = files.inline(tmp_path / "checkpoint_5", files.state(expected))
    assert b"msgpack_chunked" in (path / "checkpoint").read_bytes()
    assert_same(load(path), expected)


def test_decoder_and_optimiser_are_not_even_unpacked(tmp_path, monkeypatch):
    expected = files.params()
    path = files.inline(tmp_path / "checkpoint_5", files.state(expected))
    unpacked = []
    inner = msgpack_arrays.array_of
    monkeypatch.setattr(msgpack_arrays, "array_of", lambda *a: unpacked.append(a) or inner(*a))
    load(path)
    assert len(unpacked) == len(expected)


def test_addresses_of_stores():
    assert t5x_checkpoint.kvstore("gs://t5-data/t5x/xl/checkpoint_1", "target.a.kernel/") == {
        "driver": "gcs",
        "bucket": "t5-data",
        "path": "t5x/xl/checkpoint_1/target.a.kernel/",
    }
    assert t5x_checkpoint.kvstore("gs://bucket")["path"] == ""
    local = t5x_checkpoint.kvstore("some/where", "a")
    assert local == {"driver": "file", "path": f"{Path.cwd()}/some/where/a/"}


@pytest.mark.parametrize("write", (files.zarr, files.orbax, files.orbax_of_today))
def test_a_bucket_is_read_like_a_directory(write, tmp_path, monkeypatch):
    """Everything but Google's own driver: addresses in the bucket lead to a directory instead."""
    expected = files.params()
    write(tmp_path / "bucket/t5/checkpoint_5", files.state(expected))
    (tmp_path / "bucket/t5/config.gin").write_text(files.GIN)
    real = t5x_checkpoint.kvstore

    def local(directory, name=""):
        place = real(directory, name)
        assert place["driver"] == "gcs"
        return {"driver": "file", "path": f"{tmp_path}/{place['bucket']}/{place['path']}"}

    monkeypatch.setattr(t5x_checkpoint, "kvstore", local)
    monkeypatch.setattr(hugging_face.paths, "is_file", lambda path: False)
    monkeypatch.setattr(hugging_face.paths, "names", lambda path: [])
    assert_same(load("gs://bucket/t5/checkpoint_5"), expected)
    assert "config.text.width=16 must be 8" in error_of(
        "gs://bucket/t5/checkpoint_5/", TINY.clone(width=16)
    )
    assert "no such file or directory" in error_of("gs://bucket/t6/checkpoint_5")


HUGGING_FACE = {
    "file": lambda at, tensors: files.safetensors(at / "t5.safetensors", tensors),
    "directory": lambda at, tensors: files.safetensors(at / "model.safetensors", tensors).parent,
    "parts": files.sharded,
    "index": lambda at, tensors: files.sharded(at, tensors) / "model.safetensors.index.json",
}


@pytest.mark.parametrize("encoder", (TINY, SCANNED), ids=("t5", "umt5"))
@pytest.mark.parametrize("layout", HUGGING_FACE)
def test_safetensors_give_back_the_encoder(layout, encoder, tmp_path):
    expected = files.params(encoder)
    tensors = files.hugging_face(expected)
    tensors["decoder.final_layer_norm.weight"] = np.ones(3, np.float32)
    tensors["lm_head.weight"] = np.ones(3, np.float32)
    assert_same(load(HUGGING_FACE[layout](tmp_path, tensors), encoder), expected)


@pytest.mark.parametrize("absent", ("shared.weight", "encoder.embed_tokens.weight"))
def test_the_embedding_has_two_names(absent, tmp_path):
    expected = files.params()
    tensors = files.hugging_face(expected)
    del tensors[absent]
    assert_same(load(files.safetensors(tmp_path / "t5.safetensors", tensors)), expected)


def test_matrices_are_kept_in_the_type_that_computes(tmp_path):
    half = TINY.clone(dtype=jnp.bfloat16)
    path = files.inline(tmp_path / "checkpoint_5", files.state(files.params()))
    params = load(path, half)
    kinds = {path: str(array.dtype) for path, array in flat(params).items()}
    biases = kinds.pop("encoder/relpos_bias/rel_embedding")
    assert (biases, set(kinds.values())) == ("float32", {"bfloat16"})
    ids = jnp.asarray([[5, 6, 7, 1, 0]])
    full, kept = (jax.jit(half.apply)({"params": p}, ids) for p in (load(path), params))
    np.testing.assert_array_equal(full, kept)


@pytest.mark.parametrize("options", [{"use_ocdbt": True}, {"use_zarr3": True},
                                     {"use_ocdbt": True, "use_zarr3": True}])  # fmt: skip
def test_orbax_stores_of_either_format_in_folders_or_a_database(options, tmp_path):
    expected = files.params()
    path = files.orbax_of_today(tmp_path / "checkpoint_7", files.state(expected), **options)
    assert_same(load(path), expected)
    chosen = path / "state"
    assert_same(load(chosen), expected)
    (chosen / "_METADATA").write_text("{")
    assert "is no T5X checkpoint, or is cut short" in error_of(path)


@pytest.mark.parametrize(
    ("name", "what"),
    {
        "pytorch_model.bin": "a pickle of PyTorch",
        "pytorch_model.bin.index.json": "pickles of PyTorch",
        "t5.pth": "a pickle of PyTorch",
        "tf_model.h5": "weights of TensorFlow",
        "flax_model.msgpack": "weights of transformers' Flax classes",
        "t5-Q4_K_M.gguf": "quantised weights (GGUF)",
    }.items(),
)
def test_other_formats_are_refused_by_name(name, what, tmp_path):
    for path in (tmp_path / "hub" / name, tmp_path / "hub"):
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub/config.json").write_text("{}")
        (tmp_path / "hub" / name).write_bytes(b"PK")
        message = error_of(path)
        assert message.startswith(f"{path}: holds {what}, which is not read; give its model.safe")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "X9"])
def test_numbers_of_another_type_are_refused_by_name(dtype, tmp_path):
    path = files.safetensors(tmp_path / "t5.safetensors", files.hugging_face(files.params()))
    path.write_bytes(path.read_bytes().replace(b'"F32"', f'"{dtype}"'.encode()))
    content = path.read_bytes()
    start = content.index(b"}}") + 2
    path.write_bytes((start - 8).to_bytes(8, "little") + content[8:])
    kind = "8-bit floating-point numbers" if dtype.startswith("F8") else "numbers"
    assert f"has {kind} of type {dtype}, which are not read; give the file in F32" in error_of(path)


# --- the public files of T5X's own tests


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs shared/data")
def test_t5x_own_fixtures():
    encoder = TINY.clone(vocab_size=32128)
    params = flat(load(SHARED / "test_t5_tiny.checkpoint_0", encoder))
    assert params["encoder/layers_1/mlp/wo/kernel"].shape == (16, 8)
    spec = {
        "dtype": "float64",
        "metadata": {"shape": [10, 5], "chunks": [10, 5], "compressor": {"id": "gzip", "level": 1}},
    }
    place = SHARED / "tiny_t5/checkpoint_1"
    kernel = np.asarray(t5x_checkpoint.open_store(str(place), "state.param_states.kernel/", spec))
    assert kernel.shape == (10, 5) and 0 < kernel.min() < kernel.max() < 1
    assert "holds no encoder" in error_of(place)  # its `target` is empty


# --- config.gin


def test_gin_is_read_without_what_it_imports(tmp_path):
    path = files.inline(tmp_path / "t5/checkpoint_5", files.state(files.params()))
    assert t5x_checkpoint.gin_sizes(str(path)) == {}
    (tmp_path / "t5/config.gin").write_text(files.GIN)
    found = t5x_checkpoint.gin_sizes(str(path))
    assert found == {name: getattr(TINY, name) for name in found} and len(found) == 6
    assert_same(load(path), files.params())


def test_gin_of_flaxformer_names_sizes_as_macros(tmp_path):
    (tmp_path / "config.gin").write_text(
        "include 'flaxformer/t5x/configs/t5/models/t5_1_1_base.gin'\n"
        "NUM_ENCODER_LAYERS = 24\nNUM_HEADS = 64\nHEAD_DIM = 64\nEMBED_DIM = 4096\n"
        "MLP_DIM = 10240\ndense.MlpBlock.activations = ('gelu', 'linear')\n"
    )
    assert t5x_checkpoint.gin_sizes(str(tmp_path)) == sizes.T5["t5_1_1_xxl"]


def test_gin_of_another_model_is_refused_before_any_array_is_read(tmp_path):
    (tmp_path / "checkpoint_5").mkdir()
    (tmp_path / "checkpoint_5/checkpoint").write_bytes(b"never read")
    large = "network.T5Config:\n  emb_dim = 1024\n  num_heads = 16\n  mlp_dim = 2816\n"
    (tmp_path / "config.gin").write_text(large + "  num_encoder_layers = 24\n  head_dim = 64\n")
    encoder = TINY.clone(vocab_size=sizes.VOCAB_SIZE, **sizes.T5["t5_1_1_xxl"])
    path = tmp_path / "checkpoint_5"
    assert error_of(path, encoder) == (
        f"config.text.width=4096 must be 1024, that of {path}; its sizes are those of t5_1_1_large "
        "(--config=FILE:VARIANT,text=t5_1_1_large has them)."
    )


@pytest.mark.parametrize(
    "text, message",
    (
        ("network.T5Config.mlp_activations = ('relu',)", "activations ('relu',); those of T5 v1.1"),
        ("network.T5Config = = 3", "is not gin"),
    ),
)
def test_gin_that_cannot_be_right(text, message, tmp_path):
    path = files.inline(tmp_path / "checkpoint_5", files.state(files.params()))
    (path / "config.gin").write_text(text)
    assert message in error_of(path)


# --- mistakes


def test_another_model_is_named(tmp_path):
    path = files.inline(tmp_path / "checkpoint_5", files.state(files.params()))
    assert error_of(path, TINY.clone(heads=3)) == (
        f"config.text.heads=3 must be 4, that of {path}; its sizes are nearest to t5_1_1_small."
    )
    for field, other in dict(width=9, head_dim=2, layers=3, mlp_dim=17, vocab_size=41).items():
        ours = getattr(TINY, field)
        message = error_of(path, TINY.clone(**{field: other}))
        assert message.startswith(f"config.text.{field}={other} must be {ours}, that of ")
    assert "relpos_per_layer=True must be False" in error_of(path, SCANNED)
    half = files.safetensors(tmp_path / "t5.safetensors", files.hugging_face(files.params()))
    assert "config.text.width=9 must be 8" in error_of(half, TINY.clone(width=9))


def test_nothing_there_says_where_to_get_it(tmp_path):
    config = maskgit.get_config("t2v")
    with pytest.raises(UserError) as caught:
        factory.text_params(config)
    assert str(caught.value) == (
        "config.text.weights='data/t5/t5_1_1_xxl/checkpoint_1000000': no such file or directory. "
        "Get gs://t5-data/pretrained_models/t5x/t5_1_1_xxl/checkpoint_1000000, or "
        "model.safetensors of google/t5-v1_1-xxl at Hugging Face (docs/text.md), or give "
        "--config.text.weights=random for an untrained encoder."
    )
    assert error_of(tmp_path / "t5.safetensors").endswith("no such file.")
    assert error_of(tmp_path / "model.safetensors.index.json").endswith("no such file.")
    assert "it has no file `checkpoint`." in error_of(tmp_path)
    files.inline(tmp_path / "checkpoint_9", files.state(files.params()))
    assert error_of(tmp_path).endswith(f"`checkpoint`; give {tmp_path}/checkpoint_9.")


@pytest.mark.parametrize("keep", (0, 1, 100, 0.5, 0.99))
def test_a_file_cut_short(keep, tmp_path):
    for path in (
        files.inline(tmp_path / "checkpoint_5", files.state(files.params())) / "checkpoint",
        files.safetensors(tmp_path / "t5.safetensors", files.hugging_face(files.params())),
    ):
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
        assert error_of(path).rpartition(" or is ")[2].startswith("cut short or damaged (")


@pytest.mark.parametrize("content", (b"\x80", b"\xc0", b"PK\x03\x04 a zip", b'{"a": 1}', b"\x01"))
def test_a_file_of_another_kind(content, tmp_path):
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    assert "is no T5X checkpoint" in error_of(tmp_path) or "no encoder" in error_of(tmp_path)


def test_pickles_are_refused(tmp_path):
    import pickle

    path = tmp_path / "checkpoint"
    path.write_bytes(pickle.dumps({"target": files.nested(files.params())}))
    assert "is no T5X checkpoint" in error_of(path)


def test_a_missing_part_of_a_store_is_not_read_as_zeros(tmp_path):
    path = files.zarr(tmp_path / "checkpoint_5", files.state(files.params()))
    store = path / "target.encoder.layers_1.mlp.wo.kernel"
    chunk = store / "1.0"
    kept = chunk.read_bytes()
    chunk.unlink()
    assert error_of(path) == f"{store}: has 3 of its 4 files; fetch it again."
    chunk.write_bytes(kept[:10])
    assert "layers_1/mlp/wo/kernel' is damaged" in error_of(path)
    shutil.rmtree(store)
    assert "0 of its 4 files" in error_of(path)


def without(tree, name):
    return {path: array for path, array in tree.items() if path != name}


def test_arrays_that_do_not_fit(tmp_path):
    def message(arrays):
        number = len(list(tmp_path.iterdir()))
        return error_of(files.inline(tmp_path / f"checkpoint_{number}", files.state(arrays)))

    params, norm = files.params(), "encoder/layers_1/pre_mlp_layer_norm/scale"
    assert message(without(params, norm)).endswith(f"array {norm!r} is missing.")
    assert message(without(params, "token_embedder/embedding")).endswith("embedding' is missing.")
    assert message(params | {"encoder/x": np.ones(2)}).endswith("'encoder/x' is unexpected.")
    assert message(params | {norm: np.ones(5)}).endswith("has shape (5,), not (8,).")
    assert message(params | {"token_embedder/embedding": np.ones(5)}).endswith("shapes of a T5.")
    whole = np.ones(8, np.uint16)
    assert message(params | {norm: whole}).endswith("uint16, not floating-point numbers.")
    assert "is a T5 1.0" in message(params | {"encoder/layers_0/mlp/wi/kernel": np.ones((8, 16))})
    no_encoder = {"token_embedder/embedding": np.ones((40, 8), np.float32)}
    assert "is it a decoder-only model?" in message(no_encoder)


def test_safetensors_that_do_not_fit(tmp_path):
    tensors = files.hugging_face(files.params())

    def message(tensors):
        return error_of(files.safetensors(tmp_path / "t5.safetensors", tensors))

    first = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    assert "wi_0/kernel' is missing" in message(without(tensors, first))
    clip = {"text_model.encoder.layers.0.mlp.fc1.weight": np.ones((2, 2), np.float32)}
    assert "holds no T5 encoder" in message(clip)
    assert "'encoder.extra' is unexpected" in message(tensors | {"encoder.extra": np.ones(2, "f")})
    old = tensors[first]
    tensors = {name.replace("wi_0", "wi"): tensor for name, tensor in tensors.items()}
    assert old.shape == (16, 8) and "is a T5 1.0" in message(tensors)


def test_an_index_that_does_not_fit(tmp_path):
    files.sharded(tmp_path, files.hugging_face(files.params()))
    part = tmp_path / "model-00002-of-00002.safetensors"
    moved = part.rename(tmp_path / "elsewhere")
    assert error_of(tmp_path) == f"{part}: no such file."
    files.safetensors(part, {"shared.weight": np.ones((40, 8), np.float32)})
    assert "has no tensor" in error_of(tmp_path)
    moved.rename(part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text()[:-30])
    assert "is no index of safetensors" in error_of(tmp_path)


# --- sizes


@functools.cache
def shapes(name):
    encoder = factory.text_encoder(maskgit.get_config(f"small,text={name}"))
    ids = jnp.ones((1, 1), jnp.int32)
    return jax.eval_shape(encoder.init, jax.random.key(0), ids)["params"]


@pytest.mark.parametrize("name", sizes.T5)
def test_public_sizes(name):
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(name)))
    assert total == ENCODER_PARAMETERS[name]
    assert sizes.nearest(sizes.T5[name]) == name


def test_every_matrix_of_the_largest_is_split_over_the_mesh():
    assert factory.text_encoder(maskgit.get_config("t2v")).dtype == jnp.bfloat16
    mesh = sharding.make_mesh(1, 4, 2)
    whole = 0
    for path, leaf in flat(shapes("t5_1_1_xxl")).items():
        spec = sharding.spec(path, leaf.shape, mesh)
        axes = [(axis,) if isinstance(axis, str) else axis or () for axis in spec]
        parts = math.prod(mesh.shape[axis] for dimension in axes for axis in dimension)
        assert parts == (8 if "kernel" in path else 4 if "embedding" in path else 1), path
        whole += math.prod(leaf.shape) // parts
    assert whole < ENCODER_PARAMETERS["t5_1_1_xxl"] / 7.5
