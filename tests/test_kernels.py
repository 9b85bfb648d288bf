"""One attention behind every kernel: the same numbers and gradients, and the right one chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.blocks import kernels
from phenaki.blocks.attention import SelfAttention, attend
from phenaki.train import parallel


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
    kernel = value_and_gradients(lambda *x: kernels.splash(*x, interpret=True), inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), plain, kernel)


def test_splash_on_a_mesh_is_that_of_one_device():
    inputs = operands(length=256, width=16)
    mesh = parallel.make_mesh(data=2, fsdp=1, tensor=2, sequence=2)
    with jax.set_mesh(mesh):
        split = jax.jit(lambda *x: kernels.splash(*x, interpret=True))(*inputs)
    np.testing.assert_allclose(split, attend(*inputs), atol=2e-5)
    assert len(split.sharding.device_set) == 8


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
@pytest.mark.parametrize("width", [44, 64])
def test_cudnn_is_the_plain_form(width):
    inputs = operands(width=width, dtype=jnp.bfloat16)
    plain = value_and_gradients(attend, inputs)
    kernel = value_and_gradients(kernels.cudnn, inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.05), plain, kernel)


@pytest.mark.parametrize(
    ("on", "length", "dtype", "expected"),
    [
        ("tpu", 256, jnp.bfloat16, kernels.splash),
        ("tpu", 6, jnp.bfloat16, None),
        ("tpu", 200, jnp.bfloat16, None),
        ("gpu", 256, jnp.bfloat16, kernels.cudnn),
        ("gpu", 256, jnp.float32, None),
        ("gpu", 6, jnp.bfloat16, None),
        ("cpu", 256, jnp.bfloat16, None),
    ],
)
def test_each_platform_has_its_own(monkeypatch, on, length, dtype, expected):
    monkeypatch.setattr(kernels, "platform", lambda: on)
    query, key, _ = operands(length, 64, dtype)
    assert kernels.choose("auto", query, key) is expected
    assert kernels.choose("xla", query, key) is None


def test_a_mask_or_dropout_keeps_the_plain_form(monkeypatch):
    calls = []
    monkeypatch.setattr(kernels, "choose", lambda *x: calls.append(x))
    x = jnp.ones((1, 128, 8))
    module = SelfAttention(2, dropout=0.5, attention="auto")
    params = module.init(jax.random.key(0), x)
    calls.clear()
    module.apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(1)})
    module.apply(params, x, mask=jnp.ones((1, 1, 1, 128), bool))
    assert not calls
    module.apply(params, x)
    assert len(calls) == 1


def test_the_mesh_says_the_platform():
    assert kernels.platform() == "cpu"
    with jax.set_mesh(parallel.make_mesh(data=8, fsdp=1, tensor=1)):
        assert kernels.platform() == jax.devices()[0].platform
