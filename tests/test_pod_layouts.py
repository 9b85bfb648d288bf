"""Layouts of pods that must change no value: T5 by activations, captions in one batch, sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from phenaki import sharding
from phenaki.blocks import sharding as activations
from phenaki.models import factory
from phenaki.planning import costs
from phenaki.text import matrix_products
from phenaki.text.t5 import T5Encoder
from phenaki.train import inputs

SIZES = [
    (dict(data=2, fsdp=2, sequence=2), True),
    (dict(data=2, fsdp=4), True),
    (dict(data=2, fsdp=1, tensor=4), False),  # the heads are split already
    (dict(data=1, fsdp=8), False),  # so many captions that the parameters are the lesser
]


@pytest.fixture(scope="module")
def encoder():
    network = T5Encoder(50, 64, heads=8, head_dim=16, layers=2, mlp_dim=64)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 50, (8, 24)))
    params = network.init(jax.random.key(0), ids)["params"]
    return network, params, ids


@pytest.mark.parametrize(("sizes", "stay"), SIZES, ids=str)
def test_text_is_the_same_whether_parameters_or_activations_travel(encoder, sizes, stay):
    network, params, ids = encoder
    mesh = sharding.make_mesh(**dict(tensor=1) | sizes)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, sharding.shardings(params, mesh))
        assert matrix_products.parameters_stay(ids.shape, 8, 16, 64) is stay
        program = jax.jit(lambda params, ids: network.apply({"params": params}, ids))
        compiled_program = program.lower(placed, ids).compile()
        found = compiled_program(placed, ids)
    np.testing.assert_allclose(found, network.apply({"params": params}, ids), atol=1e-5)
    if stay:  # no device gathers a matrix
        moved = costs.count(compiled_program.as_text()).collectives
        assert moved["reduce-scatter"][0] >= 2 * 2  # two sums a layer, of which each has its part
        group = mesh.shape["fsdp"] * mesh.shape["sequence"]
        matrices = 4 * 2 * (4 * 64 * 128 + 3 * 64 * 64)  # bytes of two layers
        assert moved["all-gather"][1] < matrices * (group - 1) / group


def test_t5_s_matrices_are_split_by_columns_then_by_rows(encoder):
    _, params, _ = encoder
    mesh = sharding.make_mesh(data=2, fsdp=2, sequence=2, tensor=1)
    layer = sharding.shardings(params, mesh)["encoder"]["layers_0"]
    wide = ("fsdp", "sequence")
    for name in ("query", "key", "value"):
        assert layer["attention"][name]["kernel"].spec == PartitionSpec(None, wide)
    assert layer["mlp"]["wi_1"]["kernel"].spec == PartitionSpec(None, wide)
    assert layer["attention"]["out"]["kernel"].spec == PartitionSpec(wide, None)
    assert layer["mlp"]["wo"]["kernel"].spec == PartitionSpec(wide, None)


@pytest.mark.parametrize("rows", [(8, 4), (8, 3)])
def test_merged_rows_come_apart_again(rows):
    arrays = [jnp.arange(100 * n, 100 * n + 2 * n).reshape(n, 2) for n in rows]
    with jax.set_mesh(sharding.make_mesh(data=2, fsdp=2, sequence=2, tensor=1)):
        merged = activations.merge_rows(arrays)
        apart = activations.split_rows(merged, arrays)
    assert merged.shape == (sum(rows), 2)
    for a, b in zip(apart, arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    # The rows of the first of four parts are those of the first device.
    if rows == (8, 4):
        np.testing.assert_array_equal(merged[:3], jnp.concatenate([arrays[0][:2], arrays[1][:1]]))


def test_captions_of_all_kinds_are_encoded_in_one_batch_as_alone():
    config = tiny.whole_config()
    network = factory.text_encoder(config)
    params = factory.text_params(config)
    random = np.random.default_rng(0)
    batch = {
        kind: {"text_ids": jnp.asarray(random.integers(0, 200, (rows, config.text.length)))}
        for kind, rows in (("video", 4), ("image", 2))
    }
    calls = []

    def embed(frozen, part):
        calls.append(part["text_ids"].shape)
        return inputs.text(network, frozen, part)

    together = inputs.texts(embed, {"text": params}, batch)
    assert calls == [(6, config.text.length)]
    for kind, part in batch.items():
        alone = inputs.text(network, {"text": params}, part)
        np.testing.assert_allclose(together[kind].embeddings, alone.embeddings, atol=1e-5)
        np.testing.assert_array_equal(together[kind].mask, alone.mask)


@pytest.mark.parametrize("sizes", [dict(data=1, fsdp=8), dict(data=2, fsdp=2, sequence=2)], ids=str)
def test_parameters_for_a_loop_are_on_every_device_in_the_type_of_products(sizes):
    random = np.random.default_rng(0)
    params = {
        "wi": {"kernel": random.normal(size=(16, 32)), "bias": random.normal(size=32)},
        "embedding": random.normal(size=(9, 16)),
    }
    params = jax.tree.map(jnp.float32, params)
    mesh = sharding.make_mesh(**dict(tensor=1) | sizes)
    placed = jax.device_put(params, sharding.shardings(params, mesh))
    assert not placed["wi"]["kernel"].sharding.is_fully_replicated
    with jax.set_mesh(mesh):
        found = jax.jit(lambda tree: activations.gather_parameters(tree, jnp.bfloat16))(placed)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found))
    assert found["wi"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["wi"]["kernel"], params["wi"]["kernel"].astype("bfloat16"))
    np.testing.assert_array_equal(found["embedding"], params["embedding"])
    np.testing.assert_array_equal(found["wi"]["bias"], params["wi"]["bias"])
