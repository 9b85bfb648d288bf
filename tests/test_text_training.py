"""Stage 2 with a T5 from files, encoding online or cached, and with class names for captions."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_files as files
import tiny
from ml_collections import ConfigDict
from test_text_vocabulary import trained

from configs import maskgit
from phenaki.data import batches
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.train import inputs, logs
from phenaki.train import maskgit as training

ONE = jax.devices()[:1]
SIZES = ("vocab_size", "width", "heads", "head_dim", "layers", "mlp_dim")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tokenizer, a T5X checkpoint with its config.gin, and its vocabulary."""
    root = tmp_path_factory.mktemp("text")
    tokenizer = {"tokenizer": tiny.phenaki().params["tokenizer"]}
    config = tiny.tokenizer_config()
    checkpoint.save_bundle(root / "tokenizer", tokenizer, config.to_dict(), kind="tokenizer")
    (root / "t5.model").write_bytes(trained())
    files.zarr(root / "t5/checkpoint_5", files.state(files.params()))
    (root / "t5/config.gin").write_text(files.GIN)
    return root


def t5_config(root, **text):
    config = tiny.maskgit_config(train={"steps": 2})
    config.text = ConfigDict(
        maskgit.get_config().text.to_dict()
        | {name: getattr(files.TINY, name) for name in SIZES}
        | dict(vocabulary=f"{root}/t5.model", weights=f"{root}/t5/checkpoint_5", length=12)
        | text
    )
    return config


def train(config, root, name):
    training.train(config, root / "tokenizer", root / name, ONE)
    return [line["loss/total"] for line in logs.read(root / name) if "loss/total" in line]


def test_cached_captions_are_those_encoded_in_the_step(root):
    config = training.with_tokenizer(
        t5_config(root, cached=True, length=96), tiny.tokenizer_config(), ""
    )
    encoder, params = factory.text_encoder(config), factory.text_params(config)
    embed = functools.partial(inputs.text, encoder)
    captions = inputs.caption_encoder(
        factory.vocabulary(config), config.text.vocabulary, encoder, params
    )
    with contextlib.closing(batches.make(config, captions)) as made:
        part = jax.tree.map(jnp.asarray, next(made)["video"])
    ids = {"text_ids": part["text_ids"]}
    cached, online = embed({}, part), jax.jit(embed)({"text": params}, ids)
    np.testing.assert_array_equal(cached.mask, online.mask)
    valid = np.asarray(cached.mask)
    assert valid.any() and not valid.all()
    np.testing.assert_allclose(cached.embeddings[valid], online.embeddings[valid], atol=1e-5)


def test_a_run_trains_and_samples_with_its_encoder(root):
    assert len(train(t5_config(root), root, "t5_run")) == 2
    model = Phenaki.load(root / "t5_run")
    text = model.embed(["red x moves up", None])
    assert text.embeddings.shape == (2, 12, 8) and text.mask.any(-1).tolist() == [True, False]
    one, other, again = (
        model.generate([prompt], seed=0) for prompt in ("red x", "blue y moves down", "red x")
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0


def test_a_class_conditional_run(root):
    config = tiny.maskgit_config(train={"steps": 2})
    whole = training.with_tokenizer(config, tiny.tokenizer_config(), "")
    names = sorted(set(batches.first(whole, 64)[1]))
    (root / "labels.txt").write_text("\n".join(names))
    text = maskgit.get_config("classes").text.to_dict()
    text |= dict(vocabulary=f"labels:{root}/labels.txt", width=len(names))
    config.text = ConfigDict(text)
    assert len(train(config, root, "classes")) == 2
    model = Phenaki.load(root / "classes")
    with pytest.raises(UserError, match="must be a class name of"):
        model.generate(["a purple cow"], seed=0)
    model.save(root / "bundle")
    again = Phenaki.load(root / "bundle")  # whose text encoder has no parameters
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert again.generate([names[0], None], seed=0).shape[0] == 2


@pytest.mark.parametrize(
    "text, message",
    (
        (dict(vocabulary="nowhere.model"), "nowhere.model: no such vocabulary; get gs://"),
        (dict(weights="nowhere"), "config.text.weights='nowhere': no such file or directory"),
        (dict(width=9), "config.text.width=9 must be 8, that of "),
    ),
)
def test_mistakes_are_reported_before_anything_is_written(root, text, message):
    with pytest.raises(UserError) as caught:
        train(t5_config(root, **text), root, "never")
    assert str(caught.value).startswith(message)
    assert not (root / "never").exists()


def test_random_weights_need_no_file(root):
    config = t5_config(root, weights="random")
    assert jax.tree.structure(factory.text_params(config)) == jax.tree.structure(
        files.nested(files.params())
    )
