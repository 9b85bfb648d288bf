"""The specification that every attention implementation passes, and which one is selected."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from phenaki import sharding
from phenaki.blocks import attention_impl, flash
from phenaki.blocks.attention import SelfAttention
from phenaki.blocks.attention_impl import CHOICES, IMPLEMENTATIONS
from phenaki.blocks.dropout import DropoutMask, kept
from phenaki.planning import chips, compiled, costs

# Kernels for TPUs run interpreted here. cuDNN and the kernel for Hopper run on GPUs only, in half
# precision; tests/test_flash_gpu.py interprets the latter where JAX can.
INTERPRETED = {"splash": dict(interpret=True), "flash": dict(interpret=True)}
# What a kernel has not written yet is NaN, as it may be on a chip.
POISONED = pltpu.InterpretParams(uninitialized_memory="nan", detect_races=True)
DTYPES = {"cudnn": jnp.bfloat16, "mosaic": jnp.bfloat16}
TOLERANCES = {"xla": 2e-5, "splash": 2e-5, "flash": 3e-5, "cudnn": 0.05, "mosaic": 0.05}
WITHOUT, WITH = False, True


def runs_here(name):
    platforms = IMPLEMENTATIONS[name].platforms
    return name in INTERPRETED or not platforms or jax.default_backend() in platforms


def operands(length=256, width=48, dtype=jnp.float32, keys=None):
    shapes = [(2, length, 2, width)] + 2 * [(2, keys or length, 2, width)]
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def masked(query, key):
    """Hides some keys of every query, never the first."""
    hidden = np.random.default_rng(1).random((query.shape[0], 1, query.shape[1], key.shape[1]))
    return jnp.asarray(hidden > 0.3).at[..., 0].set(True)


def dropped(query, key, rate=0.3):
    batch, length, heads, _ = query.shape
    rows = jax.random.bits(jax.random.key(0), (batch, heads, length, 1))
    columns = jax.random.bits(jax.random.key(1), (batch, heads, 1, key.shape[1]))
    return DropoutMask(rows, columns, rate)


def formula(query, key, value, mask=None, dropout=None):
    """The definition, which knows none of the implementations."""
    scores = jnp.einsum("bshe,buhe->bhsu", query, key, preferred_element_type=jnp.float32)
    scores = scores / query.shape[-1] ** 0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -1e30)
    weights = jax.nn.softmax(scores)
    if dropout is not None:
        keep = kept(dropout.rows, dropout.columns, dropout.rate)
        weights = jnp.where(keep, weights / (1 - dropout.rate), 0)
    return jnp.einsum("bhsu,buhe->bshe", weights, value)


def value_and_gradients(function, inputs):
    weights = jnp.cos(jnp.arange(inputs[0].size).reshape(inputs[0].shape))
    loss = lambda *x: (function(*x) * weights).sum()  # noqa: E731
    return function(*inputs), jax.grad(loss, (0, 1, 2))(*inputs)


def close(ours, expected, atol):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize("with_dropout", [WITHOUT, WITH], ids=["plain", "dropout"])
@pytest.mark.parametrize("with_mask", [WITHOUT, WITH], ids=["all", "mask"])
@pytest.mark.parametrize(
    ("length", "width", "keys"),
    [(256, 48, None), (256, 64, 128), (192, 64, 128), (256, 44, None), (6, 16, None)],
)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_is_the_formula_or_refuses(
    name, length, width, keys, with_mask, with_dropout
):
    implementation = IMPLEMENTATIONS[name]
    inputs = operands(length, width, DTYPES.get(name, jnp.float32), keys)
    mask = masked(*inputs[:2]) if with_mask else None
    dropout = dropped(*inputs[:2]) if with_dropout else None
    if not implementation.supports(*inputs[:2], mask, dropout):
        with pytest.raises(NotImplementedError, match=name):
            implementation(*inputs, mask, dropout)
        return
    if not runs_here(name):
        pytest.skip(f"{name} needs {' or '.join(implementation.platforms)}")
    options = INTERPRETED.get(name, {})
    ours = functools.partial(implementation, mask=mask, dropout=dropout, **options)
    plain = functools.partial(formula, mask=mask, dropout=dropout)
    close(value_and_gradients(ours, inputs), value_and_gradients(plain, inputs), TOLERANCES[name])


@pytest.mark.parametrize(
    ("name", "masks", "drops"),
    [
        ("xla", {WITHOUT, WITH}, {WITHOUT, WITH}),
        ("splash", {WITHOUT}, {WITHOUT}),
        ("flash", {WITHOUT}, {WITH}),
        ("cudnn", {WITHOUT}, {WITHOUT}),
        (
            "mosaic",
            {WITHOUT},
            {WITHOUT, WITH},
        ),  # a mask per query; of keys alone: test_flash_gpu.py
    ],
)
def test_what_an_implementation_supports(name, masks, drops):
    query, key, _ = operands(256, 64, jnp.bfloat16)
    for with_mask in (WITHOUT, WITH):
        for with_dropout in (WITHOUT, WITH):
            mask = masked(query, key) if with_mask else None
            dropout = dropped(query, key) if with_dropout else None
            expected = with_mask in masks and with_dropout in drops
            assert IMPLEMENTATIONS[name].supports(query, key, mask, dropout) is expected


def test_every_implementation_can_be_chosen_and_every_choice_ends_in_xla():
    assert {name for names in CHOICES.values() for name in names} == set(IMPLEMENTATIONS)
    assert set(CHOICES) == {"auto", "xla", "splash", "cudnn", "mosaic"}
    assert all(names[-1] == "xla" for names in CHOICES.values())


@pytest.mark.parametrize("name", ["splash", "flash"])
def test_a_kernel_on_a_mesh_is_that_of_one_device(name):
    inputs = operands(length=256, width=16)
    dropout = dropped(*inputs[:2]) if name == "flash" else None
    kernel = functools.partial(IMPLEMENTATIONS[name], dropout=dropout, interpret=True)
    mesh = sharding.make_mesh(data=2, fsdp=1, tensor=2, sequence=2)
    with jax.set_mesh(mesh):
        split = jax.jit(lambda *x: value_and_gradients(kernel, x))(*inputs)
    plain = functools.partial(formula, dropout=dropout)
    close(split, value_and_gradients(plain, inputs), TOLERANCES[name])
    assert len(split[0].sharding.device_set) == 8


@pytest.mark.parametrize(
    ("length", "width", "keys", "block", "interpret"),
    [(256, 48, None, 256, True), (192, 64, 128, 192, POISONED), (2048, 16, None, 256, True)],
)
def test_the_dropping_kernel_is_the_plain_form(length, width, keys, block, interpret):
    inputs = operands(length, width, keys=keys)
    assert flash.block_of(length, keys or length) == block
    dropout = dropped(*inputs[:2])
    kernel = functools.partial(IMPLEMENTATIONS["flash"], dropout=dropout, interpret=interpret)
    plain = functools.partial(formula, dropout=dropout)
    close(value_and_gradients(kernel, inputs), value_and_gradients(plain, inputs), 3e-5)


@pytest.mark.parametrize(
    ("on", "length", "dtype", "expected"),
    [
        ("tpu", 256, jnp.bfloat16, "splash"),
        ("tpu", 6, jnp.bfloat16, "xla"),
        ("tpu", 200, jnp.bfloat16, "xla"),
        ("gpu", 256, jnp.bfloat16, "cudnn"),
        ("hopper", 256, jnp.bfloat16, "cudnn"),
        ("hopper", 72, jnp.bfloat16, "mosaic"),
        ("hopper", 256, jnp.float32, "xla"),
        ("hopper", 6, jnp.bfloat16, "xla"),
        ("gpu", 256, jnp.float32, "xla"),
        ("gpu", 6, jnp.bfloat16, "xla"),
        ("cpu", 256, jnp.bfloat16, "xla"),
    ],
)
def test_each_platform_has_its_own(monkeypatch, on, length, dtype, expected):
    monkeypatch.setattr(attention_impl, "platform", lambda: on)
    query, key, _ = operands(length, 64, dtype)
    assert attention_impl.select("auto", query, key) == expected
    assert attention_impl.select("xla", query, key) == "xla"


@pytest.mark.parametrize(
    ("on", "length", "expected"),
    [
        ("tpu", 256, "flash"), ("tpu", 192, "flash"), ("tpu", 6, "xla"),
        ("hopper", 256, "mosaic"), ("hopper", 6, "xla"), ("gpu", 256, "xla"),
    ],
)  # fmt: skip
def test_weights_are_dropped_by_a_kernel_on_tpus_and_hopper(monkeypatch, on, length, expected):
    monkeypatch.setattr(attention_impl, "platform", lambda: on)
    query, key, _ = operands(length, 64, jnp.bfloat16)
    dropout = dropped(query, key)
    assert attention_impl.select("auto", query, key, None, dropout) == expected
    assert attention_impl.select("xla", query, key, None, dropout) == "xla"
    assert flash.block_of(256, 100_000) == 0  # keys that do not fit on the chip


@pytest.mark.parametrize("attention", ["splash", "cudnn", "mosaic"])
def test_a_choice_of_the_config_is_taken_on_any_platform(attention):
    query, key, _ = operands(256, 64, jnp.bfloat16)
    assert attention_impl.platform() == "cpu"
    assert attention_impl.select(attention, query, key) == attention


def test_a_mask_keeps_the_plain_form_and_dropout_has_its_own_kernel(monkeypatch):
    calls = []
    select = attention_impl.select
    monkeypatch.setattr(attention_impl, "select", lambda *x: calls.append(select(*x)) or calls[-1])
    monkeypatch.setattr(attention_impl, "platform", lambda: "tpu")
    for name in ("splash", "flash"):
        call = functools.partial(IMPLEMENTATIONS[name].call, interpret=True)
        monkeypatch.setitem(IMPLEMENTATIONS, name, IMPLEMENTATIONS[name]._replace(call=call))
    x = jnp.ones((1, 128, 8))
    module = SelfAttention(2, dropout=0.5, attention="auto")
    params = module.init(jax.random.key(0), x)
    calls.clear()
    module.apply(params, x, mask=jnp.ones((1, 1, 1, 128), bool))
    module.apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(1)})
    module.apply(params, x)
    assert calls == ["xla", "flash", "splash"]


def test_attention_drops_the_same_weights_with_and_without_the_kernel(monkeypatch):
    module = SelfAttention(2, dropout=0.5, attention="splash")
    plain = module.clone(attention="xla")
    x = jax.random.normal(jax.random.key(2), (2, 128, 16))
    params = plain.init(jax.random.key(0), x)
    options = dict(deterministic=False, rngs={"dropout": jax.random.key(1)})
    interpreted = functools.partial(attention_impl.flash, interpret=True)
    kernel = IMPLEMENTATIONS["flash"]._replace(call=interpreted)
    monkeypatch.setitem(IMPLEMENTATIONS, "flash", kernel)
    expected = plain.apply(params, x, **options)
    np.testing.assert_allclose(module.apply(params, x, **options), expected, atol=1e-5)
    assert abs(expected - plain.apply(params, x)).max() > 0.1


@pytest.mark.skipif(not compiled.available(), reason="libtpu is not installed (extra tpu)")
@pytest.mark.parametrize(("length", "width"), [(2304, 48), (1536, 64), (192, 64)])
def test_the_dropping_kernel_compiles_for_a_tpu(length, width):
    place = compiled.mesh(
        chips.parse("v5e:2x2"), dict(data=4, fsdp=1, sequence=1, tensor=1, slices=1)
    )
    split = jax.sharding.NamedSharding(place, sharding.BATCH)

    def shape(*sizes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct((4, *sizes), dtype, sharding=split)

    def loss(query, key, value, *words):
        out = attention_impl.flash(query, key, value, None, DropoutMask(*words, 0.1))
        return out.astype(jnp.float32).sum()

    inputs = [shape(length, 2, width)] * 3
    words = shape(2, length, 1, dtype=jnp.uint32), shape(2, 1, length, dtype=jnp.uint32)
    with jax.set_mesh(place):
        text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*inputs, *words).compile().as_text()
    assert sum(costs.count(text).flops.values()) == 7 * 2 * 2 * length**2 * width


def test_the_mesh_says_the_platform():
    assert attention_impl.platform() == "cpu"
    with jax.set_mesh(sharding.make_mesh(data=8, fsdp=1, tensor=1)):
        assert attention_impl.platform() == jax.devices()[0].platform
