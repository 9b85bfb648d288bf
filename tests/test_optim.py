"""Optimisers that a config can name, besides the paper's: what they make of gradients."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_paper import shapes

from phenaki import sharding
from phenaki.train import optim


def a_layer():
    """Parameters as those of a transformer of two layers, 8 wide, with two heads."""
    random = np.random.default_rng(4)
    shapes = {
        "layers": {
            "qkv": {"kernel": (2, 8, 3, 2, 4), "bias": (2, 3, 2, 4)},
            "wi": {"kernel": (2, 8, 16)},
        },
        "head": {"kernel": (8, 4)},
        "position": (3, 8),
    }

    def draw(shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def updates_of(make, gradients, weight_decay=0.0, times=1):
    optimizer = make(lambda _: 0.1, b1=0.9, b2=0.99, weight_decay=weight_decay, clip=1e9)
    params = a_layer()
    after = optimizer.init(params)
    for _ in range(times):
        updates, after = optimizer.update(gradients, after, params)
    return updates


def test_muon_makes_the_products_of_layers_orthogonal_each_by_itself():
    gradients = a_layer()
    updates = updates_of(optim.muon, gradients)["layers"]
    qkv = np.moveaxis(np.asarray(updates["qkv"]["kernel"]), 2, 1).reshape(6, 8, 8)
    matrices = [*qkv, *np.asarray(updates["wi"]["kernel"])]
    for matrix in matrices:
        # 0.2 of the rate as root mean square if all singular values are one; they nearly are.
        sizes = np.linalg.svd(matrix)[1] / (0.1 * 0.2 * math.sqrt(max(matrix.shape)))
        assert sizes.min() > 0.6 and sizes.max() < 1.3
    # Against the gradient, and blind to its size, which differs between matrices.
    assert all((matrix * g).sum() < 0 for matrix, g in zip(qkv, np.moveaxis(
        np.asarray(gradients["layers"]["qkv"]["kernel"]), 2, 1).reshape(6, 8, 8), strict=True)
    )  # fmt: skip
    keys = {"kernel": gradients["layers"]["qkv"]["kernel"].at[:, :, 1].multiply(100.0)}
    larger = gradients["layers"] | {"qkv": gradients["layers"]["qkv"] | keys}
    other = updates_of(optim.muon, gradients | {"layers": larger})["layers"]["qkv"]["kernel"]
    np.testing.assert_allclose(other, updates["qkv"]["kernel"], rtol=1e-4, atol=1e-6)


def test_muon_leaves_all_else_to_adamw():
    gradients = a_layer()
    ours, theirs = (
        updates_of(make, gradients, weight_decay=0.3, times=3) for make in (optim.muon, optim.adamw)
    )
    biases = [updates["layers"]["qkv"].pop("bias") for updates in (ours, theirs)]
    np.testing.assert_array_equal(*biases)
    for name in ("head", "position"):
        jax.tree.map(np.testing.assert_array_equal, ours[name], theirs[name])
    still = jax.tree.map(jnp.zeros_like, gradients)
    decayed = updates_of(optim.muon, still, weight_decay=0.3)["layers"]["wi"]["kernel"]
    np.testing.assert_allclose(decayed, -0.1 * 0.3 * a_layer()["layers"]["wi"]["kernel"], rtol=1e-5)


@pytest.mark.parametrize(
    "stage, variant, products",
    [
        ("maskgit", "t2v", 6),
        ("cvivit", "mit", 16),
        ("baselines", "vit", 8),
        ("baselines", "conv", 0),
    ],
)
def test_muon_trains_every_product_of_a_transformers_layers(stage, variant, products):
    flat, _ = jax.tree_util.tree_flatten_with_path(shapes(stage, variant))
    kernels = [(path, leaf) for path, leaf in flat if path[-1].key == "kernel"]
    within = [(path, leaf) for path, leaf in kernels if "layers" in [part.key for part in path]]
    assert len(within) == products
    for path, leaf in within:
        axes = optim._axes(path)
        inputs = leaf.shape[axes.reduction_axis]
        outputs = math.prod(leaf.shape[axis] for axis in axes.output_axis)
        matrices = leaf.shape[0] * (3 if "qkv" in str(path) else 1)
        assert inputs * outputs * matrices == leaf.size
    assert not [path for path, _ in flat if optim._axes(path)][products:]


def test_muon_on_eight_devices_is_muon_on_one():
    gradients, mesh = a_layer(), sharding.make_mesh(data=2, fsdp=2, tensor=2)
    optimizer = optim.muon(lambda _: 0.1, b1=0.9, b2=0.99, weight_decay=0.1, clip=1.0)
    start = optimizer.init(a_layer())
    places = [sharding.shardings(tree, mesh) for tree in (gradients, start, a_layer())]
    assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(places[1]))
    split = jax.jit(optimizer.update)(
        *(jax.device_put(*pair) for pair in zip((gradients, start, a_layer()), places, strict=True))
    )
    for expected, given in zip(
        jax.tree.leaves(optimizer.update(gradients, start, a_layer())),
        jax.tree.leaves(split),
        strict=True,
    ):
        np.testing.assert_allclose(expected, given, rtol=1e-4, atol=1e-5)


def test_config_names_the_optimizer():
    config = tiny.maskgit_config()
    options = optim.OptimOptions(**config.optim)
    for name, leaves in (("adamw", 2), ("muon", 1)):
        made = optim.make_optimizer(dataclasses.replace(options, name=name))
        moments = jax.tree.leaves(made.init(a_layer()))
        assert sum(leaf.shape == (2, 8, 16) for leaf in moments) == leaves
    del config.optim.name  # as in runs from before it could be chosen
    assert optim.OptimOptions(**config.optim).name == "adamw"
