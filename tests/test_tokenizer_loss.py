"""Equation 2 in the step: what each term reaches, images, options, and the whole at full size."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from configs import baselines, cvivit
from phenaki.errors import UserError
from phenaki.features import i3d, vgg, weights
from phenaki.losses import gan, perceptual
from phenaki.losses.tokenizer import Adversary, TokenizerLoss
from phenaki.models import factory
from phenaki.models.discriminator import Discriminator
from phenaki.train import state, tokenizer

RNG = np.random.default_rng(0)
CONFIG = tiny.tokenizer_config()
MODEL = factory.tokenizer(CONFIG)
DISCRIMINATOR = Discriminator(width=8)
CLIPS = {"video": RNG.integers(256, size=(4, 11, 16, 16, 3)).astype(np.uint8)}
IMAGES = {"video": RNG.integers(256, size=(4, 1, 16, 16, 3)).astype(np.uint8)}
WEIGHTS = dict(l2=1.0, vq=1.0, adversarial=0.1, perceptual=0.3, video_perceptual=0.7)
KEY = jax.random.key(0)


def shift(frozen, real, fake):
    return frozen["scale"] * jnp.abs(fake.mean() - real.mean())


def motion(frozen, real, fake):
    return None if real.shape[1] == 1 else jnp.abs(jnp.diff(fake, axis=1)).mean()


PERCEPTUAL = {"perceptual": shift, "video_perceptual": motion}
FROZEN = {"scale": jnp.float32(2.0)}
OPTIONS = dict(ema=0.9, accumulate=1, usage_window=10, revive_until=0)


def equation_2(adversary):
    return TokenizerLoss(
        MODEL, weights=WEIGHTS, beta=0.25, perceptual=PERCEPTUAL, adversary=adversary
    )


@functools.cache
def start(adaptive=0.0, rate=1.0, own=None, **options):
    """(step, state) with plain gradient descent on both sides; `own` is the discriminator's."""
    values = dict(frames=None, start=0, r1=1.0, r1_every=1, lecam=0.1) | options
    gan_loss = gan.make_gan_loss(
        lambda params, clips: DISCRIMINATOR.apply({"params": params}, clips),
        gan.LOSSES["non_saturating"],
        **values,
    )
    own = own or optax.sgd(0.01)
    loss = equation_2(Adversary(gan_loss, own, 0.9, adaptive, values["start"]))
    optimizer = optax.sgd(rate)
    step = tokenizer.TokenizerStep(loss, optimizer, **OPTIONS)
    clip = jnp.asarray(CLIPS["video"][:1] / 255, jnp.float32)
    other = tiny.random_params(DISCRIMINATOR, clip)
    extra = tokenizer.initial_extra(loss, other)
    return jax.jit(step), state.create(tiny.random_params(MODEL, clip), optimizer, extra)


def run(batch, **options):
    step, first = start(**options)
    return first, *step(first, FROZEN, batch, KEY)


def moved(before, after):
    return any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_the_total_is_equation_2():
    _, _, logged = run({"video": CLIPS})
    expected = WEIGHTS["adversarial"] * logged["gan/generator"]
    expected += sum(
        w * logged[f"loss/{name}"] for name, w in WEIGHTS.items() if name != "adversarial"
    )
    np.testing.assert_allclose(logged["loss/total"], expected, rtol=1e-5)


def test_both_networks_move_and_only_by_their_own_losses():
    first, after, _ = run({"video": CLIPS})
    before = first.extra["discriminator"]["params"]
    assert moved(first.params, after.params)
    assert moved(before, after.extra["discriminator"]["params"])
    # Before `start` the GAN loss moves neither: the tokenizer trains as without an adversary.
    first, late, _ = run({"video": CLIPS}, start=1)
    assert not moved(before, late.extra["discriminator"]["params"])
    step = tokenizer.TokenizerStep(equation_2(None), optax.sgd(1.0), **OPTIONS)
    alone = state.create(first.params, optax.sgd(1.0), tokenizer.initial_extra(equation_2(None)))
    alone, _ = jax.jit(step)(alone, FROZEN, {"video": CLIPS}, KEY)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        late.params,
        alone.params,
    )


def test_until_it_joins_the_discriminator_and_its_optimiser_are_what_they_were():
    rate = optax.linear_schedule(0.0, 1e-2, 4)
    step, current = start(start=2, own=optax.adamw(rate, weight_decay=0.1))
    first = current.extra["discriminator"]
    for _ in range(2):
        current, logged = step(current, FROZEN, {"video": CLIPS}, KEY)
        assert logged["gan/logit_real"] != 0  # the averages would move by it
        jax.tree.map(np.testing.assert_array_equal, current.extra["discriminator"], first)
    for count in (1, 2):
        current, _ = step(current, FROZEN, {"video": CLIPS}, KEY)
        own = current.extra["discriminator"]
        counts = {int(leaf) for leaf in jax.tree.leaves(own["opt_state"]) if leaf.ndim == 0}
        assert counts == {count}  # its warm-up begins when it joins
    assert own["averages"]["real"] != 0
    assert moved(first["params"], own["params"])


def test_images_train_both_networks_but_have_no_motion():
    first, after, logged = run({"image": IMAGES})
    assert "image/loss/perceptual" in logged
    assert "image/loss/video_perceptual" not in logged
    assert float(logged["image/gan/generator"]) > 0
    assert moved(first.extra["discriminator"]["params"], after.extra["discriminator"]["params"])
    quiet = run({"image": IMAGES}, start=1)[1]
    assert moved(after.params, quiet.params)  # what the GAN loss adds to an image's gradient


def test_the_mean_logits_are_updated():
    _, after, logged = run({"video": CLIPS, "image": IMAGES})
    averages = after.extra["discriminator"]["averages"]
    np.testing.assert_allclose(averages["real"], 0.1 * logged["gan/logit_real"], rtol=1e-5)
    np.testing.assert_allclose(averages["fake"], 0.1 * logged["gan/logit_fake"], rtol=1e-5)


def test_the_adaptive_weight_is_of_the_last_layer():
    _, _, logged = run({"video": CLIPS, "image": IMAGES}, adaptive=1e4)
    _, first = start(adaptive=1e4)
    real = jnp.asarray(CLIPS["video"] / 255, jnp.float32)
    names = [path[0] for path in MODEL.output_layers]
    other = first.extra["discriminator"]

    def decode(last):
        return MODEL.apply({"params": first.params | last}, real).video

    def reconstruction(last):
        fake = decode(last)
        value = jnp.square(fake - real).mean() + 0.3 * shift(FROZEN, real, fake)
        return value + 0.7 * motion(FROZEN, real, fake)

    def adversarial(last):
        logits = DISCRIMINATOR.apply({"params": other["params"]}, decode(last))
        return jax.nn.softplus(-logits).mean()

    last = {name: first.params[name] for name in names}
    one, two = (optax.tree.norm(jax.jit(jax.grad(f))(last)) for f in (reconstruction, adversarial))
    np.testing.assert_allclose(logged["gan/weight"], 0.1 * one / (two + 1e-4), rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "variant"),
    [
        (cvivit, "demo"),
        (baselines, "vit_mini"),
        (baselines, "conv_mini"),
        (baselines, "laion3d_mini"),
    ],
)
def test_every_tokenizer_names_what_makes_its_pixels(module, variant):
    config = module.get_config(variant)
    model, spec = factory.tokenizer(config), factory.video_spec(config)
    clip = jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), clip)["params"]
    for path in model.output_layers:
        leaves = functools.reduce(lambda tree, name: tree[name], path, params)
        assert leaves["kernel"].shape[-1] % 3 == 0  # of colours


def test_the_whole_objective_fits_together_at_the_papers_size(monkeypatch):
    config = cvivit.get_config("mit")
    spec = factory.video_spec(config)
    names = ("vgg16", "lpips_vgg", "i3d")
    frozen = {name: jax.eval_shape(functools.partial(weights.random, name, 0)) for name in names}
    monkeypatch.setattr(factory, "frozen_features", lambda loss, directory: frozen)
    stage = tokenizer.make_stage(config)
    assert set(stage.loss.perceptual) == {"perceptual", "video_perceptual"}
    shape = (2, spec.frames, spec.height, spec.width, 3)
    batch = {"video": {"video": jax.ShapeDtypeStruct(shape, jnp.uint8)}}
    first = jax.eval_shape(stage.init, KEY)
    after, logged = jax.eval_shape(stage.step, first, frozen, batch, KEY)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, first)
    expected = {"loss/l2", "loss/vq", "loss/perceptual", "loss/video_perceptual", "gan/generator"}
    assert expected | {"gan/r1", "gan/accuracy_real"} <= set(logged)
    size = sum(x.size for x in jax.tree.leaves(after.extra["discriminator"]["params"]))
    assert size == 23_880_833


# --- the perceptual terms


def test_perceptual_image_loss_is_the_mean_over_frames():
    params = {name: weights.random(name, seed=0) for name in ("vgg16", "lpips_vgg")}
    real, fake = jnp.asarray(RNG.uniform(size=(2, 1, 2, 16, 16, 3)), jnp.float32)
    loss = jax.jit(perceptual.image_loss)
    whole = loss(params, real, fake)
    frames = [loss(params, real[:, i : i + 1], fake[:, i : i + 1]) for i in range(2)]
    np.testing.assert_allclose(whole, np.mean(frames), rtol=1e-5)
    assert whole > 0
    np.testing.assert_allclose(loss(params, real, real), 0, atol=1e-6)


# At 224 px the gradient takes minutes.
SMALL_I3D = i3d.I3D(functools.partial(i3d.preprocess, size=32))


def test_video_loss_compares_features_over_time_at_its_size():
    taps = ("Conv3d_1a_7x7", "MaxPool3d_2a_3x3")
    real, fake = jnp.asarray(RNG.uniform(size=(2, 1, 9, 16, 16, 3)), jnp.float32)
    params = {"i3d": jax.jit(lambda k: SMALL_I3D.init(k, real, taps)["params"])(KEY)}
    features = jax.jit(lambda x: SMALL_I3D.apply({"params": params["i3d"]}, x, taps))
    one, two = features(real), features(fake)
    expected = np.mean([np.square(one[tap] - two[tap]).mean() for tap in taps])
    gradient = jax.value_and_grad(perceptual.video_loss, argnums=(1, 2))
    gradient = jax.jit(gradient, static_argnums=(3, 4))
    value, (of_real, of_fake) = gradient(params, real, fake, taps, 32)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert not np.any(of_real)
    assert np.any(of_fake, axis=(0, 2, 3, 4)).all()


def test_only_metrics_ask_for_the_highest_precision():
    video, taps = jnp.zeros((1, 9, 16, 16, 3)), ("Conv3d_1a_7x7", "Conv3d_2b_1x1")
    params = {name: weights.random(name, seed=0) for name in ("vgg16", "lpips_vgg")}
    params["i3d"] = jax.jit(lambda key: SMALL_I3D.init(key, video, taps)["params"])(KEY)

    def asked(function):
        convolutions = str(jax.make_jaxpr(function)(params)).split("conv_general_dilated[")[1:]
        found = [re.search(r"precision=(.+)", text) for text in convolutions]
        return collections.Counter("HIGHEST" in match[1] for match in found if match)

    assert asked(lambda p: SMALL_I3D.apply({"params": p["i3d"]}, video, taps)) == {True: 2}
    assert asked(lambda p: perceptual.video_loss(p, video, video, taps, 32)) == {False: 2}
    assert asked(lambda p: vgg.lpips(p, video[0], video[0])) == {True: 2 * 13 + 5}
    assert asked(lambda p: perceptual.image_loss(p, video, video)) == {False: 2 * 13, True: 5}


@pytest.mark.parametrize(
    ("features", "line"),
    [
        (
            {"i3d_size": 64},
            r"config\.features\.i3d_size=64: must be 193 to 224 for logits_mean; or",
        ),
        (
            {"i3d_size": 192, "i3d": ("Mixed_3b", "pool_mean")},
            "=192: must be 193 to 224 for pool_mean",
        ),
        ({"i3d": ("Mixed_9z",)}, "I3D has no tap 'Mixed_9z'"),
    ],
)
def test_layers_that_l_vp_cannot_have_are_reported_before_anything_runs(features, line, tmp_path):
    config = tiny.tokenizer_config(
        video={"frames": 11},
        loss={"video_perceptual": 1.0},
        features={"weights": "random", **features},
    )
    with pytest.raises(UserError, match=line):
        tokenizer.train(config, tmp_path / "run", jax.devices()[:1])
    assert not list(tmp_path.glob("run/*.json"))


def test_missing_weights_are_reported_before_anything_runs(tmp_path):
    config = tiny.tokenizer_config(loss={"perceptual": 0.1}, features={"weights": str(tmp_path)})
    with pytest.raises(UserError, match=r"vgg16\.npz: is missing.*convert_weights\.py"):
        tokenizer.train(config, tmp_path / "run", jax.devices()[:1])
    assert not (tmp_path / "run").exists()
