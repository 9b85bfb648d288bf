"""I3D: its padding rule, its sizes, its taps, and the values of an independent implementation."""

from pathlib import Path

import frozen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.errors import UserError
from phenaki.features import i3d
from phenaki.features.i3d import I3D
from phenaki.features.resize import bilinear
from phenaki.features.torch_names import flatten, shapes_of

GOLDEN = Path(__file__).parent / "golden" / "i3d.npz"
EXAMPLE = jax.ShapeDtypeStruct((1, 9, 224, 224, 3), jnp.float32)


def random_params() -> dict:
    return frozen.params(shapes_of(I3D(), EXAMPLE))


def test_every_tap_equals_the_reference():
    params = random_params()
    taps = jax.jit(lambda video: I3D().apply({"params": params}, video, i3d.TAPS))(frozen.video())
    golden = np.load(GOLDEN)
    assert sorted(golden) == sorted(i3d.TAPS)
    for name, tap in taps.items():
        np.testing.assert_allclose(frozen.sample(tap), golden[name], atol=1e-4, err_msg=name)


def test_sizes_are_those_of_the_published_network():
    shapes = shapes_of(I3D(), EXAMPLE)
    sizes = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    stored = sum(size for path, size in sizes.items() if "moving" in path)
    shifts = sum(size for path, size in sizes.items() if path.endswith("beta"))
    # 57 units of 7280 channels in all; each has a shift and two statistics but no scale. With
    # scales it would have pytorch-i3d's 12,697,264 trained values.
    assert (shifts, stored) == (7280, 2 * 7280)
    assert sum(path.endswith("beta") for path in sizes) == 57
    assert sum(sizes.values()) - stored == 12_689_984
    assert sum(sizes.values()) == 12_704_544


def same_padding(inputs: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max(kernel - (inputs % stride or stride), 0)
    return total // 2, total - total // 2


def padding_case(kernel: int, stride: int, frames: int):
    """A clip without a positive pixel, weights, and what our convolution and pool make of them."""
    random = np.random.default_rng(0)
    video = jnp.asarray(-random.random((1, frames, 10, 7, 2), np.float32))
    weights = random.normal(size=(kernel, kernel, kernel, 2, 3)).astype(np.float32)
    cube, strides = (kernel,) * 3, (stride,) * 3
    convolved = i3d.conv(3, cube, strides).apply({"params": {"kernel": weights}}, video)
    return video, weights, convolved, i3d.MaxPool(cube, strides).apply({}, video)


CASES = [(7, 2, 9), (7, 2, 8), (3, 1, 9), (3, 2, 8), (2, 2, 9)]


@pytest.mark.parametrize(("kernel", "stride", "frames"), CASES)
def test_what_cannot_be_halved_is_padded_behind(kernel, stride, frames):
    video, weights, convolved, pooled = padding_case(kernel, stride, frames)
    pads = [(0, 0), *(same_padding(size, kernel, stride) for size in video.shape[1:4]), (0, 0)]

    def windows(value):
        padded = np.pad(video, pads, constant_values=value)
        views = np.lib.stride_tricks.sliding_window_view(padded, (kernel,) * 3, (1, 2, 3))
        return views[:, ::stride, ::stride, ::stride]

    expected = np.einsum("bthwcijk,ijkcd->bthwd", windows(0), weights)
    np.testing.assert_allclose(convolved, expected, atol=1e-4)
    np.testing.assert_array_equal(pooled, windows(-np.inf).max((5, 6, 7)))


@pytest.mark.parametrize(("kernel", "stride", "frames"), CASES)
def test_the_padding_rule_is_tensorflows(kernel, stride, frames):
    tf = pytest.importorskip("tensorflow")
    video, weights, convolved, pooled = padding_case(kernel, stride, frames)
    expected = tf.nn.conv3d(video, weights, [1, stride, stride, stride, 1], "SAME")
    np.testing.assert_allclose(convolved, expected.numpy(), atol=1e-4)
    expected = tf.nn.max_pool3d(video, kernel, stride, "SAME")
    np.testing.assert_array_equal(pooled, expected.numpy())


def tap_shapes(frames: int, taps: tuple[str, ...], dtype=jnp.float32) -> dict:
    video = jax.ShapeDtypeStruct((2, frames, 64, 64, 3), dtype)

    def run(video):
        return I3D().init_with_output(jax.random.key(0), video, taps)[0]

    return jax.eval_shape(run, video)


@pytest.mark.parametrize(("frames", "last"), [(9, 2), (11, 2), (17, 3)])
def test_taps_have_the_documented_shapes(frames, last):
    shapes = tap_shapes(frames, ("logits_mean", "pool_mean", "Mixed_5c"))
    assert len(shapes) == 3
    assert shapes["logits_mean"].shape == (2, 400)
    assert shapes["pool_mean"].shape == (2, 1024)
    assert shapes["Mixed_5c"].shape == (2, last, 7, 7, 1024)


def test_features_are_float32_whatever_the_clip():
    assert tap_shapes(9, ("logits_mean",), jnp.bfloat16)["logits_mean"].dtype == jnp.float32


def test_short_clips_and_unknown_taps_are_refused():
    with pytest.raises(UserError, match="8 frames: it needs 9 or more"):
        tap_shapes(8, ("Mixed_3c",))
    with pytest.raises(UserError, match="no tap 'Mixed_6a': choose from Conv3d_1a_7x7, "):
        tap_shapes(9, ("Mixed_6a",))


def test_nothing_beyond_the_last_tap_is_built():
    def init(video):
        return I3D().init(jax.random.key(0), video, ("Conv3d_1a_7x7", "Conv3d_2c_3x3"))

    params = jax.eval_shape(init, EXAMPLE)["params"]
    assert sorted(params) == ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]


def test_preprocessing_scales_and_resizes_by_the_given_rule():
    video = frozen.video()
    assert i3d.preprocess(video).shape == (1, 9, 224, 224, 3)
    assert i3d.preprocess(video, size=32).shape == (1, 9, 32, 32, 3)
    np.testing.assert_allclose(i3d.preprocess(jnp.full_like(video, 0.75)), 0.5, atol=1e-6)
    # The legacy rule puts pixel 0 at 0; the other one, half a pixel outside, repeats it.
    legacy, modern = i3d.preprocess(video), i3d.preprocess(video, bilinear)
    np.testing.assert_allclose(modern[:, :, 0, 0], 2 * video[:, :, 0, 0] - 1, atol=1e-6)
    np.testing.assert_allclose(modern[:, :, 1], modern[:, :, 0], atol=1e-6)
    assert jnp.abs(legacy[:, :, 1] - legacy[:, :, 0]).max() > 0.1


@pytest.mark.parametrize("size", [i3d.LEAST_POOLED, i3d.LEAST_POOLED - 1])
def test_the_pools_need_the_rows_that_the_check_asks_for(size):
    """At one pixel less the average of seven rows has no place."""
    video = jax.ShapeDtypeStruct((1, 9, size, size, 3), np.float32)
    network = I3D(preprocess=lambda video: video)

    def pooled(video):
        return network.init_with_output(jax.random.key(0), video)[0]["logits_mean"]

    if size == i3d.LEAST_POOLED:
        assert jax.eval_shape(pooled, video).shape == (1, i3d.CLASSES)
        return
    with pytest.raises(UserError, match="must be 193 to 224 for logits_mean"):
        jax.eval_shape(pooled, video)


def test_the_loss_on_a_tap_reaches_every_pixel():
    network = I3D(preprocess=lambda video: 2 * video - 1)
    params, video = random_params(), frozen.video()[:, :, :16, :16]

    @jax.jit
    @jax.grad
    def gradient(video):
        tap = network.apply({"params": params}, video, ("Conv3d_2c_3x3",))["Conv3d_2c_3x3"]
        return jnp.mean(jnp.square(tap))

    assert (np.abs(gradient(video)).max(-1) > 0).all()


def test_magvits_tree_is_ours():
    params = random_params()
    tensors = {f"params/{path}": array for path, array in flatten(params).items()}
    jax.tree.map(np.testing.assert_array_equal, i3d.convert(tensors), params)


def test_torch_names_and_axes_are_mapped():
    kernel = np.random.default_rng(0).normal(size=(5, 4, 1, 2, 3))
    row = np.arange(5.0)
    tensors = {
        "Conv3d_1a_7x7.conv3d.weight": kernel,
        "Conv3d_1a_7x7.bn.weight": np.ones(5),
        "Conv3d_1a_7x7.bn.bias": row,
        "Conv3d_1a_7x7.bn.running_mean": row + 1,
        "Conv3d_1a_7x7.bn.running_var": row + 2,
        "Conv3d_1a_7x7.bn.num_batches_tracked": np.array(3),
        "Mixed_5b.b2b.bn.bias": row + 3,
        "logits.conv3d.bias": row + 4,
    }
    params = flatten(i3d.convert(tensors))
    assert sorted(params) == [
        "Conv3d_1a_7x7/batch_norm/beta",
        "Conv3d_1a_7x7/batch_norm/moving_mean",
        "Conv3d_1a_7x7/batch_norm/moving_variance",
        "Conv3d_1a_7x7/conv_3d/kernel",
        "Logits.Conv3d_0c_1x1/conv_3d/bias",
        "Mixed_5b/Branch_2.Conv3d_0b_3x3/batch_norm/beta",
    ]
    ours = params["Conv3d_1a_7x7/conv_3d/kernel"]
    assert ours.shape == (1, 2, 3, 4, 5)
    assert ours[0, 1, 2, 3, 4] == kernel[4, 3, 0, 1, 2]
    assert params["Conv3d_1a_7x7/batch_norm/moving_variance"].tolist() == (row + 2).tolist()


def test_another_networks_scales_are_refused():
    tensors = {
        "Conv3d_1a_7x7.conv3d.weight": np.ones((1,) * 5),
        "Mixed_3b.b0.bn.weight": np.zeros(3),
    }
    with pytest.raises(UserError, match="Mixed_3b.b0.bn.weight is not all ones"):
        i3d.convert(tensors)
