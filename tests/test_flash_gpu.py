"""Attention for Hopper GPUs, interpreted on a CPU: copies, barriers and products give the formula.

JAX interprets kernels for GPUs from 0.11.2 on; with an older one those tests are skipped.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from phenaki import sharding
from phenaki.blocks import attention_impl, flash_gpu
from phenaki.blocks.attention_impl import IMPLEMENTATIONS
from phenaki.blocks.dropout import DropoutMask, kept
from phenaki.blocks.transformer import Block

interpreted = pytest.mark.skipif(
    not hasattr(plgpu, "InterpretGPUParams"),
    reason=f"jax {jax.__version__} does not interpret kernels for GPUs; jax >= 0.11.2 does",
)
MOSAIC = IMPLEMENTATIONS["mosaic"]


def on_cpu():
    """Memory that nothing wrote is NaN, and accesses that no barrier orders are reported."""
    return plgpu.InterpretGPUParams(detect_races=True, uninitialized_memory="nan")


def operands(batch, queries, keys, heads=1, width=64, dtype=jnp.bfloat16):
    random = np.random.default_rng(0)
    shapes = [(batch, length, heads, width) for length in (queries, keys, keys, queries)]
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def words(batch, queries, keys, heads=1, rate=0.3):
    rows = jax.random.bits(jax.random.key(0), (batch, heads, queries, 1))
    return DropoutMask(rows, jax.random.bits(jax.random.key(1), (batch, heads, 1, keys)), rate)


def hidden(batch, keys):
    """Hides a third of the keys, and all those of the last sample."""
    mask = jax.random.bernoulli(jax.random.key(2), 0.7, (batch, 1, 1, keys))
    return mask.at[-1].set(False)


def formula(query, key, value, mask=None, dropout=None):
    query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    scores = jnp.einsum("bshe,buhe->bhsu", query, key) / query.shape[-1] ** 0.5
    weights = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -1e30))
    if dropout is not None:
        keep = kept(dropout.rows, dropout.columns, dropout.rate)
        weights = jnp.where(keep, weights / (1 - dropout.rate), 0)
    return jnp.einsum("bhsu,buhe->bshe", weights, value)


def value_and_gradients(function, operands):
    *inputs, gradient = operands
    out, pullback = jax.vjp(function, *inputs)
    return out, *pullback(gradient.astype(out.dtype))


def distance(a, b):
    """Of two arrays, relative to the second."""
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)


def check(ours, operands, **options):
    """Values and gradients are the formula's, as near as half precision comes."""
    expected = value_and_gradients(functools.partial(formula, **options), operands)
    names = ("out", "d_query", "d_key", "d_value")
    for name, a, b in zip(names, ours, expected, strict=True):
        for sample in range(len(a)):
            assert distance(a[sample], b[sample]) < 6e-3, (name, sample)


@interpreted
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "width", "with_mask", "with_dropout"),
    [(2, 128, 256, 64, True, True), (1, 150, 72, 48, False, True), (2, 128, 128, 64, True, False)],
    ids=["text", "padded", "mask"],
)
def test_kernels_for_gpus_are_the_formula(
    batch, queries, keys, width, with_mask, with_dropout, capfd
):
    mask = hidden(batch, keys) if with_mask else None
    dropout = words(batch, queries, keys) if with_dropout else None
    inputs = operands(batch, queries, keys, width=width)
    kernel = functools.partial(MOSAIC, mask=mask, dropout=dropout, interpret=on_cpu())
    check(value_and_gradients(kernel, inputs), inputs, mask=mask, dropout=dropout)
    assert "RACE" not in capfd.readouterr().out


@interpreted
def test_kernels_for_gpus_drop_the_weights_that_the_plain_form_drops():
    query, key, _, _ = operands(1, 128, 64)
    dropout = words(1, 128, 64, rate=0.1)
    # Values that are the identity give the weights themselves.
    value = jnp.eye(64, dtype=jnp.bfloat16)[None, :, None]
    out = MOSAIC(query, key, value, None, dropout, interpret=on_cpu())
    keep = kept(dropout.rows, dropout.columns, dropout.rate)
    np.testing.assert_array_equal(out[:, :, 0] != 0, keep[:, 0])


def test_each_device_of_a_mesh_computes_its_part(monkeypatch):
    queries, keys, seen = 64, 32, []

    def plain(query, key, value, visible, words, rate, interpret):
        # JAX's interpreter runs the kernels on one device only: here the formula replaces them.
        seen.append((query.shape, key.shape, visible.shape, *(x.shape for x in words)))
        width = query.shape[-1]
        return formula(query * width**0.5, key, value, visible, DropoutMask(*words, rate))

    monkeypatch.setattr(flash_gpu, "attention", plain)
    inputs = operands(2, queries, keys, heads=2, dtype=jnp.float16)
    options = dict(mask=hidden(2, keys), dropout=words(2, queries, keys, heads=2))
    with jax.set_mesh(sharding.make_mesh(data=2, fsdp=1, tensor=2, sequence=2)):
        kernel = functools.partial(MOSAIC, **options)
        split = jax.jit(lambda *x: value_and_gradients(kernel, x))(*inputs)
    check(split, inputs, **options)
    assert set(seen) == {
        ((1, 32, 1, 64), (1, 32, 1, 64), (1, 1, 1, 32), (1, 1, 32, 1), (1, 1, 1, 32))
    }


def test_scores_are_never_stored():
    inputs = operands(1, 384, 640)[:3]
    dropout, mask = words(1, 384, 640), jnp.ones((1, 1, 1, 640), bool)

    def loss(*inputs):
        return MOSAIC(*inputs, mask, dropout).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*inputs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @mosaic_gpu") == 3
    assert "384x640" not in text and "640x384" not in text


def test_on_hopper_kernels_take_masks_of_keys_and_dropout(monkeypatch):
    monkeypatch.setattr(attention_impl, "platform", lambda: "hopper")
    query, key, _, _ = operands(2, 256, 128)
    dropout = words(2, 256, 128)
    for mask in (hidden(2, 128), jnp.ones((1, 1, 1, 128), bool)):
        for drop in (None, dropout):
            assert attention_impl.select("auto", query, key, mask, drop) == "mosaic"
    assert attention_impl.select("auto", query, key, jnp.ones((1, 1, 256, 128), bool)) == "xla"
    wide = jnp.ones((2, 256, 1, 160), jnp.bfloat16)
    assert attention_impl.select("auto", wide, wide, None, dropout) == "xla"


def test_both_attentions_of_a_layer_use_the_kernels(monkeypatch):
    calls = []

    def mosaic(query, key, *rest):
        calls.append((query.shape[1], key.shape[1]))
        return attention_impl.xla(query, key, *rest)

    monkeypatch.setitem(IMPLEMENTATIONS, "mosaic", MOSAIC._replace(call=mosaic))
    block = Block(
        heads=1, mlp_dim=16, dropout=0.1, attention_dropout=0.1, dtype=jnp.bfloat16,
        deterministic=False, attention="mosaic",
    )  # fmt: skip
    x, text = jnp.ones((1, 48, 8), jnp.bfloat16), jnp.ones((1, 24, 2, 1, 8), jnp.bfloat16)
    rngs = {name: jax.random.key(0) for name in ("params", "dropout")}
    jax.eval_shape(block.init, rngs, x, text, jnp.ones((1, 24), bool), None)
    assert calls == [(48, 48), (48, 24)]
