"""The baselines of Table 3: what a code and a frame depend on, images, gradients, training."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import baselines, cvivit
from phenaki.errors import UserError
from phenaki.losses.tokenizer import TokenizerLoss
from phenaki.models import factory
from phenaki.models.conv3d_vqgan import Conv3DVQGAN
from phenaki.models.conv_vqgan import ConvVQGAN
from phenaki.models.vit_vqgan import ViTVQGAN
from phenaki.train import optim, state, tokenizer

FRAMES, HEIGHT, WIDTH = 7, 8, 12
M, N = 2, 3
CODES = dict(code_dim=6, codebook=64)
MODELS = {
    "vit": ViTVQGAN(
        size=(HEIGHT, WIDTH), patch=(1, 4, 4), width=16, depth=1, heads=2, mlp_dim=32, **CODES
    ),
    "conv": ConvVQGAN(
        patch=(1, 4, 4), filters=8, multipliers=(1, 2, 2, 3), strides=(2, 2, 1), blocks=1, groups=4,
        **CODES,
    ),
    "conv3d": Conv3DVQGAN(
        size=(HEIGHT, WIDTH), patch=(2, 4, 4), widths=(8, 12, 16), strides=(2, 2), blocks=(0, 1, 1),
        expansion=2, **CODES,
    ),
}  # fmt: skip
PER_FRAME = ("vit", "conv")
LATENTS = dict(vit=FRAMES, conv=FRAMES, conv3d=4)
RNG = np.random.default_rng(0)
VIDEO = RNG.uniform(size=(2, FRAMES, HEIGHT, WIDTH, 3)).astype(np.float32)


@functools.cache
def params(name):
    return jax.jit(MODELS[name].init)(jax.random.key(0), VIDEO)["params"]


@functools.partial(jax.jit, static_argnames=("name", "method"))
def apply(name, params, x, method="__call__"):
    return MODELS[name].apply({"params": params}, x, method=method)


def tokens(name, video):
    return np.asarray(apply(name, params(name), video, "encode"))


@pytest.mark.parametrize("name", MODELS)
def test_encode_and_decode_are_the_two_halves_of_the_forward(name):
    out = apply(name, params(name), VIDEO)
    assert out.video.shape == VIDEO.shape
    found = tokens(name, VIDEO)
    assert found.shape == (2, LATENTS[name], M, N)
    np.testing.assert_array_equal(out.quantized.tokens, found)
    decoded = apply(name, params(name), found, "decode")
    np.testing.assert_allclose(decoded, out.video, atol=1e-5)


@pytest.mark.parametrize("frame", range(FRAMES))
@pytest.mark.parametrize("name", PER_FRAME)
def test_tokens_and_pixels_of_a_frame_are_its_own(name, frame):
    other = VIDEO.copy()
    other[:, frame] += 3 * RNG.normal(size=other[:, frame].shape)
    before, after = tokens(name, VIDEO), tokens(name, other)
    changed = (before != after).any((0, 2, 3))
    np.testing.assert_array_equal(changed, np.arange(FRAMES) == frame)
    alone = tokens(name, VIDEO[:, frame : frame + 1])
    np.testing.assert_array_equal(alone, before[:, frame : frame + 1])

    after = before.copy()
    after[:, frame] = (after[:, frame] + 1) % MODELS[name].codebook
    frames = [np.asarray(apply(name, params(name), x, "decode")) for x in (before, after)]
    changed = (frames[0] != frames[1]).any((0, 2, 3, 4))
    np.testing.assert_array_equal(changed, np.arange(FRAMES) == frame)


# --- the 3-D baseline: what meets what over time

GROUP = np.array([0, 1, 1, 2, 2, 3, 3])  # the latent that a frame is merged into; the learned: 0
STEPS = np.abs(GROUP - np.arange(4)[:, None])  # [latent, frame]
BLOCKS = sum(MODELS["conv3d"].blocks)


def without_blocks(params):
    """Parameters whose depthwise blocks pass their input on."""
    params = copy.deepcopy(jax.device_get(params))
    for side in ("encoder", "decoder"):
        for level in params[side]:
            if level.startswith("level"):
                wo = params[side][level]["layers"]["wo"]
                params[side][level]["layers"]["wo"] = jax.tree.map(np.zeros_like, wo)
    return params


def influence(params, method, inputs, outputs):
    """Where the gradient of each output step with respect to each input step is not zero."""
    weights = RNG.normal(size=outputs).astype(np.float32)

    @jax.jit
    @jax.jacrev
    def gradient(x):
        out = MODELS["conv3d"].apply({"params": params}, x, method=method)
        return jnp.einsum("thwc,bthwc->t", weights, out)

    return np.abs(gradient(inputs)).sum((1, 3, 4, 5)) > 0


def encoded(params):
    return influence(params, "_embed", VIDEO[:1], (4, M, N, 6))


def decoded(params):
    vectors = RNG.normal(size=(1, 4, M, N, 6)).astype(np.float32)
    return influence(params, "_pixels", vectors, VIDEO.shape[1:])


def test_time_is_halved_in_pairs_and_frame_zero_is_alone():
    alone = without_blocks(params("conv3d"))
    np.testing.assert_array_equal(encoded(alone), STEPS == 0)
    # One of the two convolutions on the way up looks one latent to either side.
    np.testing.assert_array_equal(decoded(alone), (STEPS <= 1).T)


def test_blocks_mix_latents_both_ways_so_it_is_not_causal():
    np.testing.assert_array_equal(encoded(params("conv3d")), STEPS <= BLOCKS)
    np.testing.assert_array_equal(decoded(params("conv3d")), (STEPS <= BLOCKS + 1).T)
    vectors = [
        np.asarray(apply("conv3d", params("conv3d"), x, "_embed"))[:, 0]
        for x in (VIDEO[:, :1], VIDEO)
    ]
    assert not np.allclose(*vectors, atol=1e-3)  # an image is not the start of a clip


def test_the_learned_frame_is_merged_into_the_first_latent():
    before = without_blocks(params("conv3d"))
    after = copy.deepcopy(before)
    after["encoder"]["learned_frames"] += 1
    vectors = [np.asarray(apply("conv3d", p, VIDEO, "_embed")) for p in (before, after)]
    changed = (vectors[0] != vectors[1]).any((0, 2, 3, 4))
    np.testing.assert_array_equal(changed, np.arange(4) == 0)


# --- images, gradients, training


@pytest.mark.parametrize("name", MODELS)
def test_an_image_is_a_clip_of_one_frame(name):
    still = VIDEO[:, :1]
    found = tokens(name, still)
    assert found.shape == (2, 1, M, N)
    assert apply(name, params(name), found, "decode").shape == still.shape


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_an_image_goes_through_its_codes_to_all_of_the_encoder(name):
    video = jnp.asarray(VIDEO[:, :1])

    @jax.jit
    @jax.grad
    def gradients(params):
        out = MODELS[name].apply({"params": params}, video)
        return jnp.square(out.video - video).mean()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(params(name))):
        assert np.isfinite(leaf).all()
        assert leaf.any() == (path[0].key != "quantizer"), path


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_on_a_clip_and_an_image_lower_the_loss(name):
    optimizer = optim.adamw(
        optim.schedule(peak=3e-3, warmup=1, decay=None), b1=0.9, b2=0.99, weight_decay=0.0, clip=1.0
    )
    loss = TokenizerLoss(MODELS[name], weights=dict(l2=1.0, vq=1.0), beta=0.25)
    step = tokenizer.TokenizerStep(
        loss,
        optimizer,
        ema=0.9,
        accumulate=1,
        usage_window=100,
        revive_until=0,
    )
    # The step takes its state away: the parameters of the other tests stay.
    current = state.create(params(name), optimizer, tokenizer.initial_extra(loss))
    clip = np.uint8(255 * VIDEO)
    batch = {"video": {"video": clip}, "image": {"video": clip[:, :1]}}
    step = jax.jit(step)
    history = []
    for _ in range(12):
        current, metrics = step(current, {}, batch, jax.random.key(0))
        history.append(float(metrics["loss/total"]))
    assert history[-1] < 0.8 * history[0]


# --- configs


def test_the_small_ones_are_the_size_of_ours_and_see_the_same_data():
    def size(config):
        v = config.video
        clip = jax.ShapeDtypeStruct((1, v.frames, v.height, v.width, 3), jnp.float32)
        model = factory.tokenizer(config)
        shapes = jax.eval_shape(model.init, jax.random.key(0), clip)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    ours = cvivit.get_config("mini")
    for name in ("vit_mini", "conv_mini", "laion3d_mini"):
        theirs = baselines.get_config(name)
        assert theirs.tokenizer.codebook == ours.tokenizer.codebook
        assert size(theirs) == pytest.approx(size(ours), rel=0.05), name
        del theirs["tokenizer"]
        rest = {field: ours[field] for field in ours if field != "tokenizer"}
        assert theirs.to_dict() == type(ours)(rest).to_dict()


@pytest.mark.parametrize(
    ("variant", "fields", "message"),
    [
        (
            "vit_mini",
            {"patch": (2, 12, 12)},
            r"patch\[0\]=2 must be 1: vit_vqgan tokenizes each frame",
        ),
        ("conv_mini", {"strides": (2, 2, 2)}, r"strides=\(2, 2, 2\) .* nearest is \(1, 8, 8\)"),
        ("laion3d_mini", {"patch": (2, 8, 8)}, r"patch=\(2, 8, 8\) .* nearest is \(2, 12, 12\)"),
    ],
)
def test_a_patch_that_the_network_cannot_make_is_refused(variant, fields, message):
    config = baselines.get_config(variant)
    config.tokenizer.update(fields)
    with pytest.raises(UserError, match=message):
        factory.tokenizer(config)


@pytest.mark.parametrize(
    ("variant", "fields", "message"),
    [
        ("conv_mini", {"strides": (12,)}, r"strides=\(12,\): must be 3 numbers, .* 4 levels"),
        ("conv_mini", {"strides": (3, 2, 2, 1)}, "must be 3 numbers"),
        ("conv_mini", {"multipliers": (1,)}, "must be 0 numbers"),
        ("conv_mini", {"blocks": [1, 2, 1, 1]}, r"blocks=\(1, 2, 1, 1\): must be one .* is 2\."),
        ("conv_mini", {"groups": 9}, r"groups=9: must divide .* nearest is \d"),
        ("laion3d_mini", {"strides": (6, 2)}, r"strides=\(6, 2\): must be 3 numbers"),
        ("laion3d_mini", {"blocks": 2}, r"blocks=2: must be 4 numbers.* is \(2, 2, 2, 2\)"),
        ("laion3d_mini", {"blocks": [1, 2]}, r"must be 4 numbers.* is \(1, 2, 2, 2\)"),
        ("laion3d_mini", {"blocks": (1, 2, 3, 4, 5)}, r"nearest is \(1, 2, 3, 4\)"),
    ],
)
def test_levels_that_do_not_fit_each_other_are_refused(variant, fields, message):
    config = baselines.get_config(variant)
    with config.tokenizer.ignore_type():
        config.tokenizer.update(fields)
    with pytest.raises(UserError, match=message):
        factory.tokenizer(config)


@pytest.mark.parametrize("variant", ["vit_mini", "conv_mini", "laion3d_mini"])
@pytest.mark.parametrize("field", ["time_depth", "depth", "filters", "widths", "heads"])
def test_a_network_has_its_own_sizes_and_no_others(variant, field):
    config = baselines.get_config(variant)
    own = field in config.tokenizer
    with config.tokenizer.unlocked():
        if own:
            del config.tokenizer[field]
        else:
            config.tokenizer[field] = (8, 8) if field == "widths" else 8
    words = r"is missing; \w+ needs it: " if own else r"is of \w+.*; \w+ has \w+, "
    with pytest.raises(UserError, match=rf"config\.tokenizer\.{field}.*{words}"):
        factory.tokenizer(config)


def test_a_stored_config_builds_the_same_network():
    config = baselines.get_config("laion3d_mini")
    stored = type(config)({**config.to_dict(), "tokenizer": config.tokenizer.to_dict()})
    for field in ("patch", "widths", "strides", "blocks"):
        stored.tokenizer = {**stored.tokenizer.to_dict(), field: list(config.tokenizer[field])}
    assert factory.tokenizer(stored) == factory.tokenizer(config)
