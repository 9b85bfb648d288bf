"""The discriminators: sizes, counts, the blur, which frames a logit sees, values from torch."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from phenaki.errors import UserError
from phenaki.losses.gan import r1_penalty
from phenaki.models.discriminator import Discriminator, StyleGAN2Discriminator, blur, channels

GOLDEN = Path(__file__).parent / "golden" / "discriminator.npz"  # parity/test_discriminator.py
NETWORKS = {"blur": Discriminator, "stylegan2": StyleGAN2Discriminator}
RNG = np.random.default_rng(0)


def shapes(network, height, width):
    frames = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    return jax.eval_shape(network.init, jax.random.key(0), frames)["params"]


def random_params(network, height, width):
    """As initialised, but with biases, which `init` leaves at zero."""

    def draw(path, leaf):
        fan_in = math.prod(leaf.shape[:-1]) if network != StyleGAN2Discriminator else 1
        scale = fan_in**-0.5 if path[-1].key == "kernel" else 0.1
        return jnp.asarray(RNG.normal(scale=scale, size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(network(4), height, width))


# --- sizes


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("blur", 128, 23_880_833),  # docs/paper.md#parameter-counts: 23.9M and 23.4M
        ("blur", 64, 23_408_897),
        ("stylegan2", 128, 23_882_369),  # 23.88M, 23.41M and 24.00M
        ("stylegan2", 64, 23_407_361),
        ("stylegan2", 256, 24_001_089),
    ],
)
def test_parameter_counts(name, size, expected):
    leaves = jax.tree.leaves(shapes(NETWORKS[name](512), size, size))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == expected
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


def test_channels_by_resolution():
    assert channels(128, 128, 512) == [128, 256, 512, 512, 512, 512]
    assert channels(64, 64, 512) == [256, 512, 512, 512, 512]
    assert channels(24, 24, 96) == [96] * 3  # 24, 12, 6
    assert channels(48, 40, 96) == [96] * 4  # rectangles: 40 -> 5
    assert channels(7, 7, 96) == [96]


@pytest.mark.parametrize(
    ("size", "step", "good"),
    [((36, 36), 8, (32, 32)), ((31, 50), 4, (28, 48)), ((3, 16), 1, (4, 16))],
)
def test_a_size_that_cannot_be_halved_is_named_with_a_good_one(size, step, good):
    message = (
        rf"height={size[0]}, width={size[1]}:.* multiples of {step} .* use {good[0]} x {good[1]}\."
    )
    with pytest.raises(UserError, match=message):
        channels(*size, 8)
    assert channels(*good, 8)


# --- the blur


def test_blur_halves_and_keeps_constants():
    ones = jnp.ones((1, 8, 12, 2))
    out = blur(ones, pad=1, stride=2)
    assert out.shape == (1, 4, 6, 2)
    np.testing.assert_array_equal(out[:, 1:-1, 1:-1], 1)  # exact: eighths; the border sees zeros
    np.testing.assert_array_equal(out[:, 0, 1:-1], 7 / 8)


def test_blur_is_the_binomial_filter():
    filtered = np.zeros((9, 11))
    filtered[2:6, 4:8] = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64  # of a point at (3, 5)
    point = jnp.zeros((1, 8, 10, 1)).at[0, 3, 5].set(1)
    np.testing.assert_array_equal(blur(point, pad=2, stride=1)[0, :, :, 0], filtered)
    strided = filtered[1:-1:2, 1:-1:2]
    np.testing.assert_array_equal(blur(point, pad=1, stride=2)[0, :, :, 0], strided)


# --- which frames a logit sees


def influence(network, clips):
    """[b f b f]: whether the logit of a frame (first two axes) sees another frame."""
    params = random_params(network, *clips.shape[2:4])

    @jax.jit
    @jax.jacrev
    def jacobian(clips):
        return network(4).apply({"params": params}, clips)

    return np.abs(jacobian(clips)).sum((-3, -2, -1)) > 0


def test_frames_are_judged_alone():
    seen = influence(Discriminator, jnp.asarray(RNG.uniform(size=(2, 3, 8, 8, 3)), jnp.float32))
    np.testing.assert_array_equal(seen.reshape(6, 6), np.eye(6, dtype=bool))


@pytest.mark.parametrize(("clips", "group"), [(8, 4), (6, 3), (5, 1)])
def test_stylegan2_compares_clips_and_never_frames_of_one_clip(clips, group):
    frames = 2
    video = jnp.asarray(RNG.uniform(size=(clips, frames, 4, 4, 3)), jnp.float32)
    same_group = np.kron(np.eye(clips // group), np.ones((group, group)))
    expected = np.einsum("ac,bd->abcd", same_group, np.eye(frames)) > 0
    np.testing.assert_array_equal(influence(StyleGAN2Discriminator, video), expected)


@pytest.mark.parametrize("network", NETWORKS.values())
def test_bfloat16_clips_get_float32_logits(network):
    params = random_params(network, 8, 8)
    clips = jnp.asarray(RNG.uniform(size=(2, 3, 8, 8, 3)), jnp.bfloat16)
    logits = jax.jit(network(4).apply)({"params": params}, clips)
    assert (logits.shape, logits.dtype) == ((2, 3), jnp.float32)
    # Nothing inside is rounded: the same pixels in float32 give the same logits.
    exact = jax.jit(network(4).apply)({"params": params}, clips.astype(jnp.float32))
    np.testing.assert_allclose(logits, exact, atol=1e-6)


# --- values


@pytest.mark.parametrize("name", NETWORKS)
def test_values_made_with_torch(name):
    golden = np.load(GOLDEN)
    flat = {key.split("/", 2)[2]: golden[key] for key in golden if key.startswith(f"params/{name}")}
    network = NETWORKS[name](width=int(golden["width"]))
    frames = jnp.asarray(golden["frames"], jnp.float32) / 255

    def logits(params, x):
        return network.apply({"params": params}, x)

    @jax.jit
    def penalty(params):
        return r1_penalty(lambda x: logits(params, x), frames), logits(params, frames)

    params = jax.tree.map(jnp.asarray, unflatten_dict(flat, sep="/"))
    (value, out), pull = jax.vjp(penalty, params)
    np.testing.assert_allclose(out, golden[f"logits/{name}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value, golden[f"r1/{name}"], rtol=1e-4)
    # The gradient of the gradient, at the layer farthest from the logit.
    gradient = pull((jnp.ones(()), jnp.zeros_like(out)))[0]["conv_in"]["kernel"]
    expected = golden[f"r1_gradient/{name}"]
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
