"""Both stages at the smallest sizes that still have every part: 11 frames of 16 px, 6x2x2 codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import cvivit, maskgit
from phenaki.models import factory
from phenaki.pipeline import Phenaki

WORLD = dict(radius=2.0, speed=0.5, subpixel=2, sizes=("large",))


def tokenizer_config(**fields):
    """Stage 1; `fields` such as train={"steps": 2} update the sections."""
    config = cvivit.get_config("laptop")
    config.video.update(height=16, width=16)
    config.tokenizer.update(
        patch=(2, 8, 8), width=16, code_dim=4, time_depth=1, space_depth=1, heads=2, mlp_dim=32
    )
    config.tokenizer.codebook = 32
    config.optim.update(rate=1e-3, warmup=2, decay=50)
    config.codebook.update(usage_window=2, revive_until=0)
    return _small(config, fields)


def maskgit_config(**fields):
    """Stage 2 over those codes."""
    config = maskgit.get_config("laptop")
    config.model.update(codebook=32, depth=1, width=16, mlp_dim=32, heads=2, dropout=0.1)
    config.text.update(length=48, width=16, heads=2, head_dim=8, layers=1, mlp_dim=32)
    config.optim.update(rate=1e-3, warmup=2, decay=50)
    config.sample = maskgit.get_config("mini").sample  # tokens by confidence
    config.sample.update(steps=3)
    return _small(config, fields)


def _small(config, fields):
    config.data.update(batch=8, image_batch=0)
    config.data.world = WORLD
    config.train.update(steps=4, log_every=1, save_every=2, sample_every=100)
    if "sample_count" in config.train:  # no scores
        config.train.sample_count = 0
    config.unroll = 1
    return _update(config, fields)


def _update(config, fields):
    for section, values in fields.items():
        config[section].update(values)
    return config


def whole_config(**fields):
    """Stage 2's config as its run stores it: with the tokenizer's sizes."""
    config, stage1 = maskgit_config(), tokenizer_config()
    config.video, config.tokenizer, config.fingerprint = stage1.video, stage1.tokenizer, ""
    return _update(config, fields)


def random_params(model, *inputs):
    """Parameters of the sizes and about the scales that `init` draws, without a zero among them."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        rows = leaf.shape[0] if len(leaf.shape) < 3 else leaf.shape[1]
        scale = rows**-0.5 if name == "kernel" else 0.4 if name == "embedding" else 0.1
        return (random.normal(scale=scale, size=leaf.shape) + (name == "scale")).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(draw, shapes))


def without_text(params):
    """MaskGIT's parameters less those that only captions need."""
    layers = params["transformer"]["layers"]
    layers = {name: layers[name] for name in layers if "cross" not in name}
    rest = {name: params[name] for name in params if name != "text_key_value"}
    return rest | {"transformer": params["transformer"] | {"layers": layers}}


@functools.cache
def phenaki() -> Phenaki:
    """A whole model with random weights, one for all tests: it compiles once."""
    return of_config(whole_config())


def of_config(config) -> Phenaki:
    """A whole model of `config` with random weights."""
    spec = factory.video_spec(config)
    tokens = jnp.zeros((1, spec.tokens()), jnp.int32)
    ids = jnp.ones((1, config.text.length), jnp.int32)
    text = factory.text_params(config)
    encoded = factory.embed(factory.text_encoder(config), text, ids)
    clip = jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
    params = {
        "tokenizer": random_params(factory.tokenizer(config), clip),
        "maskgit": random_params(factory.maskgit(config), tokens, encoded),
        "text": text,
    }
    return Phenaki(config, params)


@functools.cache
def unconditional() -> Phenaki:
    """`phenaki` less its text."""
    model = phenaki()
    config, params = model.config.copy_and_resolve_references(), dict(model.params)
    config.text = None
    del params["text"]
    return Phenaki(config, params | {"maskgit": without_text(params["maskgit"])})
