"""VGG16, LPIPS, Inception and the resize rules: values, sizes, and what a file must hold."""

import functools
from pathlib import Path

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.errors import UserError
from phenaki.features import inception, resize, torch_names, vgg, weights
from phenaki.stories import drift

GOLDEN = Path(__file__).parent / "golden"
PAIR = jnp.asarray((drawn.uniform(0, (2, 2, 37, 50, 3)) + 1) / 2)
TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


shapes_of = functools.cache(weights.shapes)


def params_of(name):
    return torch_names.unflatten(drawn.params(shapes_of(name)))


@pytest.fixture(scope="module")
def vgg_params():
    heads = jax.tree.map(np.abs, params_of("lpips_vgg"))
    return {"vgg16": params_of("vgg16"), "lpips_vgg": heads}


@pytest.fixture(scope="module")
def distance(vgg_params):
    """Jitted LPIPS of two batches under drawn weights."""
    return jax.jit(lambda x, y: vgg.lpips(vgg_params, x, y))


# --- resizing


@pytest.mark.parametrize("size", [(224, 224), (13, 29), (64, 7)])
def test_legacy_bilinear_is_tensorflow_1s(size):
    tf = pytest.importorskip("tensorflow")
    images = drawn.uniform(0, (2, 48, 37, 3))
    theirs = tf.compat.v1.image.resize_bilinear(images, size).numpy()
    ours = resize.legacy_bilinear(jnp.asarray(images), size)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "up", "down"),
    [
        (resize.legacy_bilinear, [0, 2, 4, 6, 8, 8], [0, 4]),
        (resize.bilinear, [0, 1, 3, 5, 7, 8], [0, 6]),
    ],
)
@pytest.mark.parametrize("axis", [1, 2])
def test_each_rule_by_hand(rule, up, down, axis):
    def resized(values, size):
        shape, target = [1, 1, 1, 1], [1, 1]
        shape[axis], target[axis - 1] = len(values), size
        return rule(jnp.asarray(values, jnp.float32).reshape(shape), tuple(target)).reshape(-1)

    np.testing.assert_allclose(resized([0, 4, 8], 6), up, atol=1e-5)
    np.testing.assert_allclose(resized([0, 0, 4, 8], 2), down, atol=1e-5)


def test_any_number_of_leading_axes():
    clip = jnp.asarray(drawn.uniform(0, (2, 3, 8, 8, 3)))
    for rule in (resize.legacy_bilinear, resize.bilinear):
        out = rule(clip, (6, 5))
        assert out.shape == (2, 3, 6, 5, 3)
        np.testing.assert_allclose(out[1], rule(clip[1], (6, 5)), atol=1e-6)


# --- VGG16 and LPIPS


def test_vgg_and_lpips_give_the_references_values(vgg_params, distance):
    golden = np.load(GOLDEN / "vgg.npz")
    # Both images in one batch: the first is the golden one.
    taps = jax.jit(vgg.features)(vgg_params["vgg16"], PAIR.reshape(-1, *PAIR.shape[2:]))
    for name, tap in zip(TAPS, taps, strict=True):
        tap = np.asarray(tap[: PAIR.shape[1]])
        np.testing.assert_allclose(tap.mean((1, 2)), golden[f"{name}/mean"], atol=1e-4)
        np.testing.assert_allclose(tap[:, -1, -1], golden[f"{name}/corner"], atol=1e-4)
    np.testing.assert_allclose(distance(*PAIR), golden["distance"], rtol=1e-5)


def test_distances_of_neighbours_are_those_of_their_pairs(vgg_params, distance, monkeypatch):
    frames = np.random.default_rng(5).uniform(size=(4, 32, 32, 3)).astype(np.float32)
    expected = distance(frames[:-1], frames[1:])
    found = jax.jit(vgg.lpips_of_neighbours)(vgg_params, frames)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    monkeypatch.setattr(weights, "random", lambda name, seed: vgg_params[name])
    of_a_story, label = drift.distance("nowhere")
    assert label == "lpips_proxy"
    np.testing.assert_allclose(of_a_story(frames[:-1], frames[1:]), expected, rtol=1e-5)
    other = of_a_story(frames[:1], frames[2:3])
    np.testing.assert_allclose(other, distance(frames[:1], frames[2:3]), rtol=1e-5)


def test_lpips_is_a_distance_per_image(distance):
    x, y = PAIR
    assert not distance(x, x).any()
    there = distance(x, y)
    assert (there > 0.01).all()
    np.testing.assert_allclose(distance(y, x), there, rtol=1e-5)
    # An image's distance is its own: the other one's partner does not matter.
    np.testing.assert_allclose(distance(x, y.at[1].set(x[1])), [there[0], 0], rtol=1e-5)


def test_lpips_has_a_gradient_where_all_channels_are_off(vgg_params):
    heads = vgg.LPIPSHeads()
    x, y = (
        tuple(jnp.abs(drawn.uniform(seed, (1, 2, 2, widths[-1]))) for widths in vgg.STAGES)
        for seed in (0, 1)
    )
    x = tuple(tap.at[:, 0].set(0) for tap in x)

    @jax.jit
    @jax.grad
    def gradient(x):
        return heads.apply({"params": vgg_params["lpips_vgg"]}, x, y).sum()

    for tap in gradient(x):
        assert np.isfinite(tap).all()
        assert np.any(tap[:, 1])


def test_convolutions_are_not_rounded_to_bfloat16(vgg_params):
    def precisions(network):
        program = jax.make_jaxpr(lambda x: network.apply({"params": vgg_params["vgg16"]}, x))
        eqns = program(PAIR[0]).jaxpr.eqns
        return {str(e.params["precision"]) for e in eqns if "conv" in e.primitive.name}

    (highest,) = precisions(vgg.VGG16())
    assert highest.count("HIGHEST") == 2
    (lower,) = precisions(vgg.VGG16(precision=None))
    assert "HIGHEST" not in lower


def test_frames_too_small_for_vgg_are_refused(vgg_params):
    with pytest.raises(UserError, match="15x40 px are too small .* at least 16x16"):
        vgg.features(vgg_params["vgg16"], jnp.zeros((1, 15, 40, 3)))


# --- Inception


def test_inception_gives_the_references_values():
    golden = np.load(GOLDEN / "inception.npz")
    images = jnp.asarray(drawn.uniform(0, (2, 107, 131, 3)))
    out = jax.jit(inception.Inception().apply)({"params": params_of("inception")}, images)
    np.testing.assert_allclose(out.pool, golden["pool"], atol=1e-4)
    np.testing.assert_allclose(out.logits, golden["logits"], atol=1e-4)


def test_inception_sees_the_whole_range_at_its_size():
    pixels = jnp.asarray([0.0, 0.5, 1.0])[:, None, None, None] * jnp.ones((1, 20, 30, 3))
    out = inception.preprocess(pixels)
    assert out.shape == (3, 299, 299, 3)
    np.testing.assert_allclose(out.mean((1, 2, 3)), [-1, 0, 1], atol=1e-6)


def test_parameter_counts():
    def count(name, left_out=()):
        leaves = shapes_of(name)
        return sum(int(np.prod(s)) for p, s in leaves.items() if not p.endswith(left_out))

    assert count("vgg16") == 14_714_688
    assert count("lpips_vgg") == 64 + 128 + 256 + 512 + 512
    # torchvision's 23,834,568 without the auxiliary head, and 8 more classes of 2048 + 1.
    assert count("inception", ("/mean", "/var")) == 23_834_568 + 8 * 2049


# --- from PyTorch's names

CASES = [
    ("vgg16", vgg.convert, vgg.torch_name, "classifier.6.bias"),
    ("lpips_vgg", vgg.convert_heads, vgg.head_torch_name, None),
    ("inception", inception.convert, inception.torch_name, "Mixed_5b.x.bn.num_batches_tracked"),
]


@pytest.mark.parametrize(("name", "convert", "torch_name", "dropped"), CASES)
def test_conversion_is_the_way_back(name, convert, torch_name, dropped):
    leaves = drawn.params(shapes_of(name))
    state = drawn.to_torch(leaves, torch_name)
    assert len(state) == len(leaves)
    if dropped:
        state[dropped] = np.zeros(())
    params = torch_names.flatten(convert({k: x.astype(np.float64) for k, x in state.items()}))
    assert params.keys() == leaves.keys()
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(params[path], leaf)
        assert params[path].dtype == np.float32


def test_names_and_axes_are_the_published_files():
    state = drawn.to_torch(drawn.params(shapes_of("vgg16")), vgg.torch_name)
    assert state["features.28.weight"].shape == (512, 512, 3, 3)
    assert state["features.2.bias"].shape == (64,)
    state = drawn.to_torch(drawn.params(shapes_of("inception")), inception.torch_name)
    assert state["Mixed_7b.branch3x3_2a.conv.weight"].shape == (384, 384, 1, 3)
    assert state["Mixed_6c.branch7x7dbl_5.bn.running_var"].shape == (192,)
    assert state["fc.weight"].shape == (1008, 2048)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("lin3.model.1.weight"), "'lin3.model.1.weight' is missing"),
        (lambda s: s.update(lin9=np.zeros(1)), "'lin9' is unexpected"),
        (
            lambda s: s.update({"lin1.model.1.weight": np.zeros((1, 192, 1, 1))}),
            r"'lin1.model.1.weight' has shape \(1, 192, 1, 1\), not \(1, 128, 1, 1\)",
        ),
        (
            lambda s: s.update({"lin1.model.1.weight": np.zeros(128)}),
            r"has shape \(128,\), not \(1, 128, 1, 1\)",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change, message):
    heads = drawn.params(shapes_of("lpips_vgg"))
    state = drawn.to_torch(heads, vgg.head_torch_name)
    change(state)
    with pytest.raises(UserError, match=message):
        vgg.convert_heads(state)
