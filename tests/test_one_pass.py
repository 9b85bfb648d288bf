"""Clips and images in one pass of MaskGIT: as in two, with parameters that move once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki import sharding
from phenaki.models.maskgit import MaskGIT
from phenaki.planning import costs
from phenaki.types import Text

MODEL = MaskGIT(
    grid=(3, 4, 8), codebook=10, width=32, depth=2, heads=4, mlp_dim=64, text_dim=8, dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip
RNG = np.random.default_rng(0)
TOKENS = {
    kind: jnp.asarray(RNG.integers(11, size=(8, length)), jnp.int32)
    for kind, length in (("video", 96), ("image", 32))
}
TEXTS = {
    kind: Text(
        jnp.asarray(RNG.normal(size=(8, 5, 8)), jnp.float32),
        jnp.asarray(RNG.random((8, 5)) < 0.7),
    )
    for kind in TOKENS
}


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(MODEL, TOKENS["video"], TEXTS["video"])


def step(apply, params, tokens, texts):
    """(logits by kind, gradients of their mean, weighed by position)."""

    def loss(params):
        logits = apply(params, tokens, texts)
        weighed = (x * jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in logits.values())
        return sum(x.mean() for x in weighed), logits

    gradients, logits = jax.grad(loss, has_aux=True)(params)
    return logits, gradients


def together(params, tokens, texts):
    return MODEL.apply({"params": params}, tokens, texts)


def apart(params, tokens, texts):
    return {kind: MODEL.apply({"params": params}, tokens[kind], texts[kind]) for kind in tokens}


@pytest.mark.parametrize(
    "sizes",
    [None, dict(data=1, fsdp=8), dict(data=2, fsdp=2, sequence=2), dict(tensor=4)],
    ids=str,
)
def test_one_pass_is_two(params, sizes):
    expected = jax.jit(functools.partial(step, apart))(params, TOKENS, TEXTS)
    one = jax.jit(functools.partial(step, together))
    if sizes is None:
        found = one(params, TOKENS, TEXTS)
    else:
        mesh = sharding.make_mesh(**dict(data=-1, fsdp=1, tensor=1) | sizes)
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, sharding.shardings(params, mesh))
            found = one(placed, TOKENS, TEXTS)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=4e-6 * abs(b).max() + 1e-8, rtol=0)


def test_images_gather_no_parameter_again(params):
    mesh = sharding.make_mesh(data=1, fsdp=8, tensor=1)

    def received(kinds):
        tokens, texts = ({kind: tree[kind] for kind in kinds} for tree in (TOKENS, TEXTS))
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, sharding.shardings(params, mesh))
            program = jax.jit(lambda params: together(params, tokens, texts))
            text = program.lower(placed).compile().as_text()
        return costs.count(text).collectives["all-gather"][1]

    matrices = 4 * sum(x.size for x in jax.tree.leaves(params["transformer"]) if x.ndim > 2)
    assert received(["video"]) > matrices / 2
    assert received(["image", "video"]) - received(["video"]) < matrices / 4


def test_dropout_reaches_both_kinds(params):
    model = MODEL.clone(dropout=0.5)
    options = dict(deterministic=False, rngs={"dropout": jax.random.key(0)})
    dropped = model.apply({"params": params}, TOKENS, TEXTS, **options)
    for kind, logits in together(params, TOKENS, TEXTS).items():
        assert abs(dropped[kind] - logits).max() > 1e-3
