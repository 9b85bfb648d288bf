"""The gradient of a gathered parameter is split again: each device gets its own part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from phenaki import sharding
from phenaki.blocks import packed_attention
from phenaki.blocks import sharding as activations
from phenaki.blocks.attention import attend
from phenaki.blocks.dense import Dense, matrix_product, product_by_heads
from phenaki.planning import chips, compiled, costs


def gradients(loss, inputs, specs, mesh):
    """Of `loss(*inputs)`, as a device would keep them, and those of one device alone."""
    alone = jax.grad(loss, tuple(range(len(inputs))))(*inputs)
    placed = [
        jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(inputs, specs, strict=True)
    ]
    with jax.set_mesh(mesh):
        return jax.jit(jax.grad(loss, tuple(range(len(inputs)))))(*placed), alone


def parts(x):
    """Into how many different parts an array is split."""
    return len({str(shard.index) for shard in x.addressable_shards})


@pytest.mark.parametrize("sizes", [dict(data=2, fsdp=4), dict(data=2, fsdp=2, sequence=2)])
def test_a_kernel_s_gradient_is_split_as_the_kernel(sizes):
    mesh = sharding.make_mesh(**dict(tensor=1) | sizes)
    dense = Dense(24, jnp.float32)
    x = jax.random.normal(jax.random.key(0), (8, 16, 32))
    kernel = dense.init(jax.random.key(1), x)["params"]["kernel"]
    spec = sharding.spec("kernel", kernel.shape, mesh)

    def loss(kernel, x):
        return jnp.sin(dense.apply({"params": {"kernel": kernel, "bias": jnp.zeros(24)}}, x)).sum()

    (got, _), (alone, _) = gradients(loss, (kernel, x), (spec, sharding.BATCH), mesh)
    assert parts(got) == 4
    np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-5)


def test_gradients_of_keys_are_split_as_their_positions():
    mesh = sharding.make_mesh(data=1, fsdp=2, sequence=4, tensor=1)
    query, key, value = jax.random.normal(
        jax.random.key(0), (3, 2, 4 * activations.SHORT_SEQUENCE, 2, 8)
    )
    spec = PartitionSpec(activations.BATCH, "sequence")

    def loss(query, key, value):
        return jnp.sin(attend(query, key, value)).sum()

    got, alone = gradients(loss, (query, key, value), (spec,) * 3, mesh)
    for each, whole in zip(got, alone, strict=True):
        assert parts(each) == 8
        np.testing.assert_allclose(each, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [dict(data=1, fsdp=2, sequence=4), dict(data=4, sequence=2)])
def test_keys_of_texts_by_heads_are_the_plain_product(sizes):
    mesh = sharding.make_mesh(**dict(tensor=1, fsdp=1) | sizes)
    x = jax.random.normal(jax.random.key(0), (8, 6, 32))
    kernel, bias = (
        jax.random.normal(jax.random.key(1), (33, 3, 2, 4, 8))[:32],
        jnp.ones((3, 2, 4, 8)),
    )
    spec = sharding.spec("text_key_value/kernel", kernel.shape, mesh)

    def loss(kernel, x, by=product_by_heads):
        out = by(x, kernel, bias)
        return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum()

    (got, _), _ = gradients(loss, (kernel, x), (spec, sharding.BATCH), mesh)
    assert parts(got) == mesh.shape["fsdp"] * mesh.shape["sequence"]
    expected = jax.grad(functools.partial(loss, by=matrix_product))(kernel, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    with jax.set_mesh(mesh):
        placed = jax.device_put(kernel, NamedSharding(mesh, spec))
        text = jax.jit(product_by_heads).lower(x, placed, bias).compile().as_text()
    # No device gathers other heads' parameters.
    gathered = costs.count(text).collectives.get("all-gather", (0, 0.0))[1]
    assert gathered <= kernel.nbytes / mesh.shape["sequence"] + x.nbytes


@pytest.mark.skipif(not compiled.available(), reason="libtpu is not installed (extra tpu)")
def test_the_gradient_of_attention_s_output_product_is_scattered_on_tpus():
    sizes = dict(data=1, fsdp=2, sequence=4, tensor=1, slices=1)
    mesh = compiled.mesh(chips.parse("v5e:2x4"), sizes)
    spec = sharding.spec("layers/attention/out/kernel", (1024, 512), mesh)

    def shape(sizes, spec):
        place = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(sizes, jnp.bfloat16, sharding=place)

    def loss(kernel, x, weights):
        out = packed_attention.join_product(x, kernel, jnp.zeros(512, jnp.bfloat16))
        return (out * weights).sum()

    given = (
        shape((1024, 512), spec),
        shape((4, 8, 256, 256), packed_attention.OUT),
        shape((8, 256, 512), PartitionSpec(activations.BATCH, "sequence")),
    )
    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(loss), out_shardings=given[0].sharding).lower(*given)
    found = costs.count(program.compile().as_text()).collectives
    assert set(found) == {"reduce-scatter"}
