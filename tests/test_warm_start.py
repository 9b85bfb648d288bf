"""A C-ViViT that starts from one trained on images."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.train import logs, maskgit, tokenizer
from phenaki.train.warm_start import warm_start

IMAGES = tiny.tokenizer_config(video={"frames": 1}, data={"batch": 0, "image_batch": 8})
CLIPS = tiny.tokenizer_config()
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def image_params():
    return tiny.random_params(factory.tokenizer(IMAGES), jnp.zeros((1, 1, 16, 16, 3)))


def fresh(config=CLIPS):
    model = factory.tokenizer(config)
    clip = jnp.zeros((1, 11, config.video.height, config.video.width, 3))
    return tiny.random_params(model, clip)


def apply(config, params, video, method):
    model = factory.tokenizer(config)
    return jax.jit(lambda p, x: model.apply({"params": p}, x, method=method))(params, video)


def test_images_are_what_they_were(image_params):
    params = warm_start(fresh(), image_params, "x")
    images = jnp.asarray(RNG.uniform(size=(3, 1, 16, 16, 3)), jnp.float32)
    tokens = apply(IMAGES, image_params, images, "encode")
    np.testing.assert_array_equal(apply(CLIPS, params, images, "encode"), tokens)
    before = apply(IMAGES, image_params, tokens, "decode")
    np.testing.assert_allclose(apply(CLIPS, params, tokens, "decode"), before, atol=1e-5)


def test_a_clip_of_equal_frames_is_its_image_over_and_over(image_params):
    params = warm_start(fresh(), image_params, "x")
    image = jnp.asarray(RNG.uniform(size=(2, 1, 16, 16, 3)), jnp.float32)
    tokens = apply(CLIPS, params, jnp.repeat(image, 11, axis=1), "encode")
    np.testing.assert_array_equal(tokens, jnp.repeat(tokens[:, :1], 6, axis=1))
    video = apply(CLIPS, params, tokens, "decode")
    np.testing.assert_allclose(video, jnp.repeat(video[:, :1], 11, axis=1), atol=1e-5)


def test_fewer_frames_are_what_the_first_ones_were():
    few = tiny.tokenizer_config(video={"frames": 5})
    model = factory.tokenizer(few)
    source = fresh()
    params = warm_start(tiny.random_params(model, jnp.zeros((1, 5, 16, 16, 3))), source, "x")
    video = jnp.asarray(RNG.uniform(size=(2, 11, 16, 16, 3)), jnp.float32)
    tokens = apply(CLIPS, source, video, "encode")
    np.testing.assert_array_equal(apply(few, params, video[:, :5], "encode"), tokens[:, :3])
    decoded = apply(CLIPS, source, tokens, "decode")[:, :5]
    np.testing.assert_allclose(apply(few, params, tokens[:, :3], "decode"), decoded, atol=1e-5)


def test_another_size_is_refused(image_params):
    wide = tiny.tokenizer_config(tokenizer={"width": 24})
    with pytest.raises(UserError, match=r"config\.start=x: its .* has shape .*, this config's"):
        warm_start(fresh(wide), image_params, "x")
    with pytest.raises(UserError, match="is not a C-ViViT"):
        warm_start(fresh(), {"other": image_params["first_in"]}, "x")


def test_a_run_starts_from_another(tmp_path):
    one = jax.devices()[:1]
    tokenizer.train(IMAGES, tmp_path / "images", one)
    assert [path.name for path in (tmp_path / "images/samples").iterdir()] == ["0000004.png"]
    names = set(logs.read(tmp_path / "images")[0])
    assert "image/psnr/first" in names and not any("rest" in name for name in names)
    trained, _, _ = checkpoint.load_tokenizer(tmp_path / "images")
    config = tiny.tokenizer_config(train={"steps": 1}, optim={"rate": 1e-30})  # moves nothing
    config.start = str(tmp_path / "images")
    after = tokenizer.train(config, tmp_path / "clips", one)
    for name in ("first_in", "first_out", "encoder_space"):
        jax.tree.map(np.testing.assert_array_equal, after.params[name], trained[name])
    # From then on it has its own parameters: the start may be gone.
    shutil.rmtree(tmp_path / "images")
    assert int(tokenizer.train(config, tmp_path / "clips", one).step) == 1
    with pytest.raises(UserError, match="no such directory"):
        tokenizer.train(config, tmp_path / "other", one)


def test_a_tokenizer_of_a_whole_model_keeps_its_codes_and_learns(whole, tmp_path):
    codebook = {"usage_window": 50, "revive_until": 50}  # a fresh run takes its codes from data
    config = tiny.tokenizer_config(codebook=codebook, train={"steps": 1}, optim={"rate": 1e-30})
    config.start = str(whole)
    one, trained = jax.devices()[:1], tiny.phenaki().params["tokenizer"]
    after = tokenizer.train(config, tmp_path / "still", one)
    jax.tree.map(np.testing.assert_array_equal, after.params, trained)
    config = tiny.tokenizer_config(codebook=codebook, train={"steps": 30}, optim={"rate": 3e-3})
    config.start = str(whole)
    tokenizer.train(config, tmp_path / "tuned", one)
    losses = [line["loss/total"] for line in logs.read(tmp_path / "tuned")]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bundle of a whole model."""
    directory = tmp_path_factory.mktemp("whole") / "model"
    tiny.phenaki().save(directory)
    return directory


def fine_tuned(whole, **fields):
    config = tiny.maskgit_config(train={"steps": 1}, optim={"rate": 1e-30, "weight_decay": 0.0})
    config.start = str(whole)
    for section, values in fields.items():
        config[section].update(values)
    return config


def test_a_maskgit_starts_from_a_whole_model(whole, tmp_path, caplog):
    one = jax.devices()[:1]
    after = maskgit.train(fine_tuned(whole), whole, tmp_path / "run", one)
    assert int(after.step) == 1 and "was trained on the tokens of" not in caplog.text
    jax.tree.map(np.testing.assert_array_equal, after.params, tiny.phenaki().params["maskgit"])
    # It resumes without the start.
    config = fine_tuned(tmp_path / "gone", train={"steps": 2})
    with pytest.raises(UserError, match=r"config\.start"):
        maskgit.train(config, whole, tmp_path / "run", one)
    config.start = ""
    assert int(maskgit.train(config, whole, tmp_path / "run", one).step) == 2


def test_another_tokenizer_than_that_of_the_start_is_named(whole, tmp_path, caplog):
    config = tiny.tokenizer_config()
    params = tiny.random_params(factory.tokenizer(config), jnp.ones((1, 11, 16, 16, 3)))
    params["quantizer"]["embedding"] += 1
    other = tmp_path / "tokenizer"
    checkpoint.save_bundle(other, {"tokenizer": params}, config.to_dict(), kind="tokenizer")
    maskgit.train(fine_tuned(whole), other, tmp_path / "run", jax.devices()[:1])
    assert "was trained on the tokens of tokenizer" in caplog.text


def test_a_maskgit_of_another_size_is_no_start(whole, tmp_path):
    config = fine_tuned(whole, model={"width": 32})
    with pytest.raises(UserError, match=r"config\.start=.*: its .* has shape .*, this config's"):
        maskgit.train(config, whole, tmp_path / "run", jax.devices()[:1])
