"""The gradient of a gathered parameter is split again: each device gets its own part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from phenaki import sharding
from phenaki.blocks import sharding as activations
from phenaki.blocks.attention import attend
from phenaki.blocks.dense import Dense


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
