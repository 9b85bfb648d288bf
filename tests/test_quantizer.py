"""Quantizers other than that of equation 1: without a codebook (FSQ, LFQ), and an EMA codebook."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from phenaki.blocks.quantizer import (
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    VectorQuantizer,
    levels,
    normalize,
)
from phenaki.diagnostics import causality
from phenaki.errors import UserError
from phenaki.losses.tokenizer import TokenizerLoss
from phenaki.models import factory
from phenaki.train import state, tokenizer

FREE = {"fsq": FiniteScalarQuantizer(64, 4), "lfq": LookupFreeQuantizer(64, 6)}


def apply(quantizer, *inputs, **keywords):
    return quantizer.apply({}, *inputs, **keywords)


@pytest.mark.parametrize(
    ("codebook", "code_dim", "expected"), [(8192, 5, (8, 8, 8, 4, 4)), (1024, 5, (4,) * 5)]
)
def test_levels_multiply_to_the_codebook(codebook, code_dim, expected):
    assert levels(codebook, code_dim) == expected


def test_fields_that_make_no_levels_are_named():
    with pytest.raises(UserError, match="config.tokenizer.codebook=1000 .* such as 1024"):
        levels(1000, 5)
    with pytest.raises(UserError, match="codebook=60 must be 2 to the power of code_dim=6"):
        apply(LookupFreeQuantizer(60, 6), jnp.zeros((1, 6)))


@pytest.mark.parametrize("name", FREE)
def test_every_code_has_a_vector_of_its_own_and_comes_back(name):
    quantizer = FREE[name]
    tokens = jnp.arange(64)
    vectors = apply(quantizer, tokens, method="lookup")
    assert len(np.unique(vectors, axis=0)) == 64
    # Far out, every value ends at its outermost level; a code's own vector must be its nearest.
    z = np.random.default_rng(0).normal(scale=3, size=(2000, quantizer.code_dim))
    out = apply(quantizer, jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(out.vectors, vectors[out.tokens], atol=1e-6)
    assert len(np.unique(out.tokens)) == 64
    distance = np.square(out.inputs[:, None] - vectors).sum(-1)
    chosen = np.take_along_axis(distance, np.asarray(out.tokens)[:, None], -1)[:, 0]
    np.testing.assert_allclose(chosen, distance.min(-1), atol=1e-6)


@pytest.mark.parametrize("name", FREE)
def test_the_gradient_goes_straight_through(name):
    z = jnp.asarray(np.random.default_rng(1).normal(size=(7, FREE[name].code_dim)), jnp.float32)
    gradient = jax.grad(lambda z: apply(FREE[name], z).vectors.sum())(z)
    through = jax.grad(lambda z: apply(FREE[name], z).inputs.sum())(z)
    np.testing.assert_allclose(gradient, through, rtol=1e-6)
    assert np.all(gradient)


def test_the_entropy_penalty_wants_sure_and_different_codes():
    signs = apply(FREE["lfq"], jnp.arange(64), method="lookup")

    def penalty(z):
        return float(apply(FREE["lfq"], z).codebook_loss)

    assert penalty(3 * signs) < penalty(0.3 * signs) < penalty(0 * signs) + 1e-6
    assert penalty(3 * signs) < penalty(3 * jnp.repeat(signs[:1], 64, axis=0))


@pytest.mark.parametrize("quantizer", ["fsq", "lfq"])
def test_a_tokenizer_with_it_trains_and_stays_causal(quantizer):
    config = tiny.tokenizer_config(tokenizer=dict(code_dim=5))
    config.tokenizer.quantizer = quantizer
    model = factory.tokenizer(config)
    video = np.random.default_rng(2).uniform(size=(2, 11, 16, 16, 3)).astype(np.float32)
    params = tiny.random_params(model, video)
    assert "quantizer" not in params
    weights = dict(l2=1.0, vq=1.0)
    loss = TokenizerLoss(model, weights=weights, beta=0.25)
    step = tokenizer.TokenizerStep(
        loss,
        optax.adam(1e-2),
        ema=0.9,
        accumulate=1,
        usage_window=2,
        revive_until=10,
    )
    current = state.create(params, optax.adam(1e-2), tokenizer.initial_extra(loss))
    step = jax.jit(step)
    batch = {"video": {"video": (255 * video).astype(np.uint8)}}
    losses = []
    for _ in range(12):
        current, metrics = step(current, {}, batch, jax.random.key(0))
        losses.append(float(metrics["loss/l2"]))
    assert losses[-1] < 0.9 * losses[0]
    assert 0 < metrics["codebook/usage"] <= 1
    encode, decode = (
        jax.jit(lambda x, m=m: model.apply({"params": current.params}, x, method=m))
        for m in ("encode", "decode")
    )
    assert not causality.leaks(encode, decode, video, time=2, codebook=32)


def test_averaged_codes_are_the_decayed_means_of_what_chose_them():
    codebook, dim, decay = 6, 3, 0.75
    random = np.random.default_rng(3)

    class Bare:
        """The quantizer alone: pixels are its inputs."""

        code_dim = dim

        def __init__(self):
            self.codebook = codebook

        def apply(self, variables, video):
            out = VectorQuantizer(codebook, dim).apply(
                {"params": variables["params"]["quantizer"]}, video
            )
            return objective_output(video, out)

    def objective_output(video, out):
        from phenaki.models.tokenizer import Reconstruction

        return Reconstruction(out.vectors, out)

    table = jnp.asarray(random.normal(size=(codebook, dim)), jnp.float32)
    params = {"quantizer": {"embedding": table}}
    loss = TokenizerLoss(Bare(), weights=dict(l2=1.0, vq=1.0), beta=0.25)
    step = tokenizer.TokenizerStep(
        loss,
        optax.sgd(0.1),
        ema=0.0,
        accumulate=1,
        usage_window=100,
        revive_until=0,
        decay=decay,
    )
    extra = tokenizer.initial_extra(loss, ema_codebook=True)
    current = state.create(params, optax.sgd(0.1), extra)
    sums, expected = np.zeros((codebook, dim)), np.asarray(table, np.float64)
    for _ in range(2):
        pixels = random.integers(1, 256, size=(2, 1, 2, 2, dim), dtype=np.uint8)
        z = np.asarray(normalize(jnp.asarray(pixels, jnp.float32).reshape(-1, dim)), np.float64)
        unit = expected / np.linalg.norm(expected, axis=-1, keepdims=True)
        chosen = (z @ unit.T).argmax(-1)
        sums = decay * sums
        np.add.at(sums, chosen, (1 - decay) * z)
        expected = np.where(np.any(sums, -1, keepdims=True), sums, expected)
        current, _ = jax.jit(step)(current, {}, {"video": {"video": pixels}}, jax.random.key(0))
        np.testing.assert_allclose(current.params["quantizer"]["embedding"], expected, atol=1e-5)
    assert 1 < len(set(chosen)) < codebook
