"""The packed attention kernel: the plain form's values and gradients, alone and on meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki import sharding
from phenaki.blocks import attention_impl, packed_attention, packed_flash
from phenaki.blocks.attention import SelfAttention
from phenaki.blocks.dropout import DropoutMask, kept
from phenaki.blocks.transformer import Transformer
from phenaki.planning import chips, compiled


def formula(qkv, rows, columns, width, rate):
    """The definition, of heads of `width` in [n 3 b r f]."""
    chunks, _, batch, length, values = qkv.shape
    whole = jnp.moveaxis(qkv, 0, 2).reshape(3, batch, chunks * length, -1, width)
    query, key, value = whole
    weights = jax.nn.softmax(jnp.einsum("bshe,buhe->bhsu", query, key) / width**0.5)
    if rows is not None:
        weights = jnp.where(kept(rows, columns, rate), weights / (1 - rate), 0)
    out = jnp.einsum("bhsu,buhe->bshe", weights, value)
    return jnp.moveaxis(out.reshape(batch, chunks, length, values), 1, 0)


def value_and_gradient(function, x):
    weights = jnp.cos(jnp.arange(x.size // 3)).reshape(x.shape[0], *x.shape[2:])
    return function(x), jax.grad(lambda x: (function(x) * weights).sum())(x)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize(
    ("chunks", "length", "heads", "width", "block"),
    [
        (1, 256, 4, 32, (1, 256)),
        (1, 192, 1, 128, (1, 192)),
        (8, 24, 2, 64, (8, 24)),  # chunks of images, which fill no tile
        (4, 256, 2, 64, (2, 256)),  # several blocks of queries
        (1, 1024, 2, 64, (1, 512)),
    ],
)
def test_the_kernel_is_the_plain_form(chunks, length, heads, width, block, rate):
    assert packed_flash.supports(chunks, length, heads, width)
    assert packed_flash.block_of(chunks, length) == block
    qkv = jax.random.normal(jax.random.key(0), (chunks, 3, 1, length, heads * width))
    rows = columns = None
    words = (None, None)
    if rate:
        shape = (1, heads, chunks * length)
        rows = jax.random.bits(jax.random.key(1), (*shape, 1))
        columns = jax.random.bits(jax.random.key(2), (*shape[:2], 1, shape[2]))
        words = packed_flash.words(rows, columns, width)
    ours = functools.partial(packed_flash.attention, interpret=True)
    found = value_and_gradient(lambda x: ours(x, *words, width, rate), qkv)
    expected = value_and_gradient(lambda x: formula(x, rows, columns, width, rate), qkv)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6)


@pytest.mark.parametrize(
    ("chunks", "length", "heads", "width"),
    [(1, 256, 3, 64), (1, 256, 4, 48), (8, 20, 2, 64), (1, 100_000, 2, 64), (1, 256, 16, 16)],
    ids=["an odd head", "no whole heads", "no tiles", "too long", "too many heads"],
)
def test_what_the_kernel_does_not_support(chunks, length, heads, width):
    assert not packed_flash.supports(chunks, length, heads, width)


def cross_formula(query, key_value, mask, rows, columns, rate):
    """The definition, of [b s f] and [b u 2 h e]."""
    key, value = key_value[:, :, 0], key_value[:, :, 1]
    query = query.reshape(*query.shape[:2], *key.shape[2:])
    scores = jnp.einsum("bshe,buhe->bhsu", query, key) / key.shape[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -1e30))
    if rate:
        weights = jnp.where(kept(rows, columns, rate), weights / (1 - rate), 0)
    return jnp.einsum("bhsu,buhe->bshe", weights, value).reshape(*query.shape[:2], -1)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [None, dict(data=2, fsdp=2, sequence=2)], ids=str)
def test_cross_attention_is_the_plain_form(rate, sizes):
    batch, length, keys, heads, width = 4, 48, 24, 4, 64
    shapes = (batch, length, heads * width), (batch, keys, 2, heads, width)
    query, key_value = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes))
    mask = jax.random.bernoulli(jax.random.key(2), 0.6, (batch, keys)).at[:, 0].set(True)
    rows = jax.random.bits(jax.random.key(3), (batch, heads, length, 1))
    columns = jax.random.bits(jax.random.key(4), (batch, heads, 1, keys))
    dropout = DropoutMask(rows, columns, rate) if rate else None
    ours = functools.partial(
        packed_attention.cross_attend, mask=mask, dropout=dropout, interpret=True
    )
    plain = functools.partial(cross_formula, mask=mask, rows=rows, columns=columns, rate=rate)

    def run(function, *inputs):
        weights = jnp.cos(jnp.arange(query.size)).reshape(query.shape)
        loss = lambda *x: (function(*x) * weights).sum()  # noqa: E731
        return function(*inputs), *jax.grad(loss, (0, 1))(*inputs)

    if sizes is None:
        found = run(ours, query, key_value)
    else:
        with jax.set_mesh(sharding.make_mesh(**sizes, tensor=1)):
            found = jax.jit(functools.partial(run, ours))(query, key_value)
    for a, b in zip(found, run(plain, query, key_value), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_sample_without_visible_keys_gives_finite_values_and_no_gradient():
    query, key_value = jnp.ones((1, 16, 128)), jnp.ones((1, 16, 2, 2, 64))
    hidden = jnp.zeros((1, 16), bool)

    def gated(query, key_value):  # as CrossAttention gates such rows
        out = packed_attention.cross_attend(query, key_value, hidden, None, True)
        return jnp.where(hidden.any(-1)[:, None, None], out, 0).sum()

    value, gradients = jax.value_and_grad(gated, (0, 1))(query, key_value)
    assert value == 0
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0)


@pytest.fixture
def as_on_a_tpu(monkeypatch):
    """Self-attention chooses the kernel, which is interpreted; the list has a value per call."""
    calls = []

    def attend(*arguments):
        calls.append(arguments[0].shape)
        return packed(*arguments, interpret=True)

    packed, cross = packed_attention.attend, packed_attention.cross_attend
    monkeypatch.setattr(attention_impl, "platform", lambda: "tpu")
    monkeypatch.setattr(packed_attention, "attend", attend)
    monkeypatch.setattr(packed_attention, "cross_attend", functools.partial(cross, interpret=True))
    return calls


# Meshes, and values per head with which each device has whole blocks of lanes of 8 heads.
MESHES = [
    (None, 32),
    (dict(data=8, fsdp=1), 32),
    (dict(data=2, fsdp=2, sequence=2), 32),
    (dict(data=2, fsdp=1, sequence=4), 64),
    (dict(data=1, fsdp=1, sequence=8), 128),
]


@pytest.mark.parametrize(("sizes", "width"), MESHES, ids=str)
def test_attention_on_a_mesh_is_the_plain_one_of_a_device(as_on_a_tpu, sizes, width):
    plain = SelfAttention(8, dropout=0.3, attention="xla")
    module = plain.clone(attention="auto")
    x = jax.random.normal(jax.random.key(2), (8, 64, 8 * width))
    params = plain.init(jax.random.key(0), x)

    def run(module, params, x):
        def loss(params, x):
            options = dict(deterministic=False, rngs={"dropout": jax.random.key(1)})
            out = module.apply(params, x, **options)
            return (out * jnp.cos(jnp.arange(x.size)).reshape(x.shape)).sum(), out

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    expected = run(plain, params, x)
    groups = 1
    if sizes is None:
        found = run(module, params, x)
    else:
        mesh = sharding.make_mesh(**sizes, tensor=1)
        groups = mesh.shape["sequence"]
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, sharding.shardings(params, mesh))
            found = jax.jit(functools.partial(run, module))(placed, x)
    assert as_on_a_tpu == [(groups, 3, 8, 64, 8 * width // groups)]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("remat", ["full", "products", "dots"])
def test_every_policy_gives_the_same_gradients(as_on_a_tpu, remat):
    network = Transformer(2, heads=8, mlp_dim=64, attention_dropout=0.1, attention="xla")
    x = jax.random.normal(jax.random.key(0), (8, 64, 256))
    params = network.init(jax.random.key(1), x)

    def gradients(network, params):
        def loss(params):
            options = dict(deterministic=False, rngs={"dropout": jax.random.key(3)})
            return jnp.square(network.apply(params, x, **options)).sum()

        return jax.grad(loss)(params)

    expected = gradients(network, params)
    with jax.set_mesh(sharding.make_mesh(data=4, fsdp=1, sequence=2, tensor=1)):
        policy = network.clone(attention="auto", remat=remat)
        found = jax.jit(functools.partial(gradients, policy))(params)
    assert (2, 3, 8, 64, 128) in as_on_a_tpu
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-3)


@pytest.mark.skipif(not compiled.available(), reason="libtpu is not installed (extra tpu)")
@pytest.mark.parametrize(("chunks", "length"), [(8, 192), (8, 24), (1, 1536), (4, 48)])
def test_the_kernel_compiles_for_a_tpu(chunks, length):
    sizes = dict(data=4, fsdp=1, sequence=1, tensor=1, slices=1)
    place = compiled.mesh(chips.parse("v5e:2x2"), sizes)
    one = jax.sharding.NamedSharding(place, jax.sharding.PartitionSpec())

    def shape(*sizes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=one)

    def loss(qkv, *words):
        return packed_flash.attention(qkv, *words, 64, 0.1).astype(jnp.float32).sum()

    rows = shape(1, 1, 2, chunks * length, dtype=jnp.uint32)
    columns = shape(1, 1, 8, chunks * length, dtype=jnp.int32)
    jax.jit(jax.grad(loss)).lower(shape(chunks, 3, 1, length, 128), rows, columns).compile()
