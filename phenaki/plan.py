"""The sizes of a config's networks, without making any."""

import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from phenaki import build
from phenaki.types import Text


def parameters(config: ConfigDict) -> tuple[dict[str, int], dict[str, int]]:
    """(trained, frozen): numbers of parameters by network. Stage 2's config has the tokenizer's."""
    spec = build.video_spec(config)
    size = (1, spec.frames, spec.height, spec.width, 3)
    clip = jax.ShapeDtypeStruct(size, jnp.float32)
    tokenizer = _count(build.tokenizer(config), clip)
    if "model" not in config:
        trained = {config.tokenizer.name: tokenizer}
        if config.loss.adversarial:
            trained["discriminator"] = _count(build.discriminator(config), clip)
        return trained, {}
    frozen, text = {"tokenizer": tokenizer}, None
    if config.text:
        ids = jnp.ones((1, config.text.length), jnp.int32)
        frozen["text encoder"] = _count(build.text_encoder(config), ids)
        text = Text(jnp.zeros((*ids.shape, config.text.width)), ids > 0)
    codes = jax.ShapeDtypeStruct((1, spec.tokens()), jnp.int32)
    return {"MaskGIT": _count(build.maskgit(config), codes, text)}, frozen


def _count(network, *inputs):
    shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
