"""One attention behind every kernel: the same numbers and gradients, and the right one chosen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki import sharding
from phenaki.blocks import attention_impl, flash
from phenaki.blocks.attention import SelfAttention, attend
from phenaki.blocks.dropout import kept
from phenaki.planning import chips, compiled, hlo


def operands(length=256, width=48, dtype=jnp.float32, keys=None):
    shapes = [(2, length, 2, width)] + 2 * [(2, keys or length, 2, width)]
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def value_and_gradients(function, inputs):
    weights = jnp.cos(jnp.arange(inputs[0].size).reshape(inputs[0].shape))
    loss = lambda *x: (function(*x) * weights).sum()  # noqa: E731
    return function(*inputs), jax.grad(loss, (0, 1, 2))(*inputs)


@pytest.mark.parametrize(("width", "keys"), [(48, None), (64, 128)])
def test_splash_is_the_plain_form(width, keys):
    inputs = operands(width=width, keys=keys)
    plain = value_and_gradients(attend, inputs)
    kernel = value_and_gradients(lambda *x: attention_impl.splash(*x, interpret=True), inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), plain, kernel)


def test_splash_on_a_mesh_is_that_of_one_device():
    inputs = operands(length=256, width=16)
    mesh = sharding.make_mesh(data=2, fsdp=1, tensor=2, sequence=2)
    with jax.set_mesh(mesh):
        split = jax.jit(lambda *x: attention_impl.splash(*x, interpret=True))(*inputs)
    np.testing.assert_allclose(split, attend(*inputs), atol=2e-5)
    assert len(split.sharding.device_set) == 8


def dropping(query, key, value):
    """The plain form with dropped weights, and the words that say which."""
    batch, length, heads, width = query.shape
    rows = jax.random.bits(jax.random.key(0), (batch, heads, length, 1))
    columns = jax.random.bits(jax.random.key(1), (batch, heads, 1, key.shape[1]))

    def plain(query, key, value):
        weights = jax.nn.softmax(jnp.einsum("bshe,buhe->bhsu", query, key) / width**0.5)
        weights = jnp.where(kept(rows, columns, 0.3), weights / 0.7, 0)
        return jnp.einsum("bhsu,buhe->bshe", weights, value)

    return plain, (rows, columns)


def close(ours, expected):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)


@pytest.mark.parametrize(
    ("length", "width", "keys", "block"),
    [(256, 48, None, 256), (192, 64, 128, 192), (2048, 16, None, 256)],
)
def test_the_dropping_kernel_is_the_plain_form(length, width, keys, block):
    inputs = operands(length, width, keys=keys)
    assert flash.block_of(length, keys or length) == block
    plain, words = dropping(*inputs)
    kernel = functools.partial(attention_impl.dropped, words=words, rate=0.3, interpret=True)
    close(value_and_gradients(kernel, inputs), value_and_gradients(plain, inputs))


def test_the_dropping_kernel_on_a_mesh_is_that_of_one_device():
    inputs = operands(length=256, width=16)
    plain, words = dropping(*inputs)
    kernel = functools.partial(attention_impl.dropped, words=words, rate=0.3, interpret=True)
    with jax.set_mesh(sharding.make_mesh(data=2, fsdp=1, tensor=2, sequence=2)):
        split = jax.jit(lambda *x: value_and_gradients(kernel, x))(*inputs)
    close(split, value_and_gradients(plain, inputs))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
@pytest.mark.parametrize("width", [44, 64])
def test_cudnn_is_the_plain_form(width):
    inputs = operands(width=width, dtype=jnp.bfloat16)
    plain = value_and_gradients(attend, inputs)
    kernel = value_and_gradients(attention_impl.cudnn, inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.05), plain, kernel)


@pytest.mark.parametrize(
    ("on", "length", "dtype", "expected"),
    [
        ("tpu", 256, jnp.bfloat16, attention_impl.splash),
        ("tpu", 6, jnp.bfloat16, None),
        ("tpu", 200, jnp.bfloat16, None),
        ("gpu", 256, jnp.bfloat16, attention_impl.cudnn),
        ("gpu", 256, jnp.float32, None),
        ("gpu", 6, jnp.bfloat16, None),
        ("cpu", 256, jnp.bfloat16, None),
    ],
)
def test_each_platform_has_its_own(monkeypatch, on, length, dtype, expected):
    monkeypatch.setattr(attention_impl, "platform", lambda: on)
    query, key, _ = operands(length, 64, dtype)
    assert attention_impl.choose("auto", query, key) is expected
    assert attention_impl.choose("xla", query, key) is None


def test_a_mask_keeps_the_plain_form_and_dropout_has_its_own_kernel(monkeypatch):
    calls = []
    monkeypatch.setattr(attention_impl, "choose", lambda *x: calls.append("choose"))
    monkeypatch.setattr(attention_impl, "drops", lambda *x: calls.append("drops"))
    x = jnp.ones((1, 128, 8))
    module = SelfAttention(2, dropout=0.5, attention="auto")
    params = module.init(jax.random.key(0), x)
    calls.clear()
    module.apply(params, x, mask=jnp.ones((1, 1, 1, 128), bool))
    assert not calls
    module.apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(1)})
    module.apply(params, x)
    assert calls == ["drops", "choose"]


def test_attention_drops_the_same_weights_with_and_without_the_kernel(monkeypatch):
    module = SelfAttention(2, dropout=0.5, attention="splash")
    plain = module.clone(attention="xla")
    x = jax.random.normal(jax.random.key(2), (2, 128, 16))
    params = plain.init(jax.random.key(0), x)
    options = dict(deterministic=False, rngs={"dropout": jax.random.key(1)})
    interpreted = functools.partial(attention_impl.dropped, interpret=True)
    monkeypatch.setattr(attention_impl, "dropped", interpreted)
    expected = plain.apply(params, x, **options)
    np.testing.assert_allclose(module.apply(params, x, **options), expected, atol=1e-5)
    assert abs(expected - plain.apply(params, x)).max() > 0.1


@pytest.mark.parametrize(
    ("on", "length", "expected"),
    [("tpu", 256, True), ("tpu", 192, True), ("tpu", 6, False), ("gpu", 256, False)],
)
def test_weights_are_dropped_by_a_kernel_on_tpus(monkeypatch, on, length, expected):
    monkeypatch.setattr(attention_impl, "platform", lambda: on)
    query, key, _ = operands(length, 64, jnp.bfloat16)
    assert attention_impl.drops("auto", query, key) is expected
    assert not attention_impl.drops("xla", query, key)
    assert flash.block_of(256, 100_000) == 0  # keys that do not fit on the chip


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
        return attention_impl.dropped(query, key, value, words, 0.1).astype(jnp.float32).sum()

    inputs = [shape(length, 2, width)] * 3
    words = shape(2, length, 1, dtype=jnp.uint32), shape(2, 1, length, dtype=jnp.uint32)
    with jax.set_mesh(place):
        text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*inputs, *words).compile().as_text()
    assert sum(hlo.costs(text).flops.values()) == 7 * 2 * 2 * length**2 * width


def test_the_mesh_says_the_platform():
    assert attention_impl.platform() == "cpu"
    with jax.set_mesh(sharding.make_mesh(data=8, fsdp=1, tensor=1)):
        assert attention_impl.platform() == jax.devices()[0].platform
