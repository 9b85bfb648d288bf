"""Attention, whatever its length, convolutions of clips, and the quantizer of equation 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.blocks import attention
from phenaki.blocks.conv3d import DepthwiseConv, StridedConv, UpConv
from phenaki.blocks.quantizer import VectorQuantizer, normalize
from phenaki.blocks.transformer import Transformer

CODEBOOK, DIM = 12, 4


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(query, key, value, mask):
    """softmax(q k / sqrt(e)) v in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.einsum("bshe,buhe->bhsu", query, key) / np.sqrt(query.shape[-1])
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhsu,buhe->bshe", weights, value)


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (5, 40)])
def test_attention_is_the_formula_at_any_length(queries, keys):
    query = normal(0, 2, queries, 3, 4)
    key, value = normal(1, 2, keys, 3, 4), normal(2, 2, keys, 3, 4)
    mask = normal(3, 2, 1, queries, keys) > -0.5
    mask[..., 0], mask[..., 1] = True, False
    attend = jax.jit(attention.attend)
    out = attend(query, key, value, mask)
    np.testing.assert_allclose(out, reference(query, key, value, mask), atol=1e-6)
    value[:, 1] = 1e6  # what is hidden counts as exactly nothing
    np.testing.assert_array_equal(out, attend(query, key, value, mask))


@pytest.mark.parametrize(("queries", "keys"), [(6, 6), (5, 40)])
def test_the_gradient_of_attention_is_that_of_finite_differences(queries, keys):
    inputs = [normal(0, 2, queries, 3, 4), normal(1, 2, keys, 3, 4), normal(2, 2, keys, 3, 4)]
    mask = normal(3, 2, 1, queries, keys) > -0.5
    mask[..., 0] = True
    weights = normal(4, 2, queries, 3, 4)

    def loss(*inputs):
        return jnp.sum(weights * attention.attend(*inputs, jnp.asarray(mask)))

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(*inputs)
    for which, gradient in enumerate(gradients):
        along = normal(5 + which, *gradient.shape)
        ends = []
        for size in (1e-5, -1e-5):
            moved = [x.astype(np.float64) for x in inputs]
            moved[which] += size * along
            ends.append((weights * reference(*moved, mask)).sum())
        expected = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((gradient * along).sum(), expected, rtol=1e-4, atol=1e-4)


PARAMS = {"embedding": jnp.asarray(normal(1, CODEBOOK, DIM))}
Z = normal(2, 2, 5, DIM)


QUANTIZER = VectorQuantizer(CODEBOOK, DIM)


@jax.jit
def quantize(params, z):
    return QUANTIZER.apply({"params": params}, z)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_layer_is_traced_once_whatever_the_depth(remat, monkeypatch):
    traced, plain = [], attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda *inputs: traced.append(len(inputs)) or plain(*inputs)
    )
    stack = Transformer(depth=5, heads=2, mlp_dim=8, remat=remat)
    x = jnp.ones((1, 3, 4))
    params = jax.eval_shape(stack.init, jax.random.key(0), x)
    assert len(traced) == 1
    jax.make_jaxpr(jax.grad(lambda params: stack.apply(params, x).sum()))(params)
    assert len(traced) == 2


def test_codes_are_the_nearest_unit_vectors():
    out = quantize(PARAMS, Z)
    table = unit(PARAMS["embedding"])
    distance = np.linalg.norm(unit(Z)[..., None, :] - table, axis=-1)
    np.testing.assert_array_equal(out.tokens, distance.argmin(-1))
    np.testing.assert_allclose(out.vectors, table[out.tokens], atol=1e-6)
    # Means over elements (docs/paper.md#codebook-losses): L_VQ stays below 4 / code_dim.
    expected = np.mean(np.square(unit(Z) - table[out.tokens]))
    np.testing.assert_allclose([out.codebook_loss, out.commitment_loss], expected, rtol=1e-5)
    lookup = jax.jit(lambda tokens: QUANTIZER.apply({"params": PARAMS}, tokens, method="lookup"))
    np.testing.assert_allclose(lookup(out.tokens), out.vectors, atol=1e-6)


def test_the_gradient_goes_straight_through():
    weights = normal(3, *Z.shape)

    def through(params, z):
        return jnp.vdot(weights, quantize(params, z).vectors)

    to_table, to_z = jax.grad(through, argnums=(0, 1))(PARAMS, Z)
    # d normalize(z) = (1 - u u') / |z|
    across = weights - (weights * unit(Z)).sum(-1, keepdims=True) * unit(Z)
    np.testing.assert_allclose(to_z, across / np.linalg.norm(Z, axis=-1, keepdims=True), atol=1e-5)
    assert not to_table["embedding"].any()


def test_each_loss_moves_its_own_side():
    def gradients(name):
        def loss(params, z):
            return getattr(quantize(params, z), name)

        return jax.grad(loss, argnums=(0, 1))(PARAMS, Z)

    used = np.isin(np.arange(CODEBOOK), quantize(PARAMS, Z).tokens)
    assert 0 < used.sum() < CODEBOOK
    to_table, to_z = gradients("codebook_loss")
    np.testing.assert_array_equal(np.any(to_table["embedding"], -1), used)
    assert not to_z.any()
    to_table, to_z = gradients("commitment_loss")
    assert not to_table["embedding"].any()
    assert np.any(to_z, -1).all()


def test_a_zero_vector_has_finite_losses_and_gradients():
    def loss(params, z):
        out = quantize(params, z)
        return out.vectors.sum() + out.codebook_loss + out.commitment_loss

    table, z = np.array(PARAMS["embedding"]), Z.copy()
    table[3], z[0] = 0, 0
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))({"embedding": table}, z)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, gradients)))
    assert not normalize(jnp.zeros((1, DIM))).any()


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (StridedConv(4, (7,) * 3, (2,) * 3), nn.Conv(4, (7,) * 3, (2,) * 3), (9, 12, 11)),
        (StridedConv(4, (2, 3, 3), (2, 2, 2)), nn.Conv(4, (2, 3, 3), (2, 2, 2)), (4, 7, 8)),
        (StridedConv(4, (1, 3, 3), (1, 2, 2)), nn.Conv(4, (1, 3, 3), (1, 2, 2)), (3, 5, 6)),
        (StridedConv(4, (3, 2, 1), (3, 4, 2)), nn.Conv(4, (3, 2, 1), (3, 4, 2)), (7, 9, 5)),
        (UpConv(4, 2), nn.ConvTranspose(4, (2, 3, 3), (2, 1, 1)), (3, 5, 4)),
        (UpConv(4, 3), nn.ConvTranspose(4, (3, 3, 3), (3, 1, 1)), (2, 3, 4)),
        (DepthwiseConv(), nn.Conv(3, (3, 3, 3), feature_group_count=3), (3, 5, 4)),
    ],
)
def test_convolutions_of_clips_are_those_of_flax(ours, theirs, shape):
    video = jnp.asarray(normal(0, 2, *shape, 3))
    params = theirs.init(jax.random.key(0), video)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, ours.init(jax.random.key(0), video)["params"]
    )
    params["bias"] = jnp.asarray(normal(1, *params["bias"].shape))

    def answers(conv):
        def loss(params, video):
            y = conv.apply({"params": params}, video)
            return (y**2).sum(), y

        gradients, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, video)
        return y, gradients

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
        answers(ours),
        answers(theirs),
    )
