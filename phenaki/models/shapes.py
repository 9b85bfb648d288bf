"""Compares the parameters of a model that others wrote with the networks of its config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.types import Text


def of_model(config: ConfigDict) -> dict[str, Any]:
    """The shapes of the parameters by network: tokenizer, maskgit and, of a model of text, text."""
    return jax.eval_shape(lambda: _initial(config))


def _initial(config):
    key, spec = jax.random.key(0), factory.video_spec(config)
    clip = jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
    tokens, text = jnp.zeros((1, spec.tokens()), jnp.int32), None
    found = {"tokenizer": factory.tokenizer(config).init(key, clip)}
    if config.text:
        size = (1, config.text.length)
        text = Text(jnp.zeros((*size, config.text.width)), jnp.ones(size, bool))
        encoder: Any = factory.text_encoder(config)
        found["text"] = encoder.init(key, jnp.zeros(size, jnp.int32))
    found["maskgit"] = factory.maskgit(config).init(key, tokens, text)
    return {name: variables.get("params", {}) for name, variables in found.items()}


def check(directory: object, params: Mapping[str, Any], config: ConfigDict) -> None:
    """Checks that the networks of `config` can take `params`, and that these are numbers.

    Raises:
        UserError: one is missing, of no network, of another shape or not finite; by its name.
    """
    expected, given = (
        {f"{name}/{path}": x for name, tree in trees.items() for path, x in _flat(tree).items()}
        for trees in (of_model(config), params)
    )
    for path in dict.fromkeys((*expected, *given)):
        if path not in given:
            raise UserError(f"{directory}: has no parameter {path}, which its config asks for.")
        if path not in expected:
            raise UserError(
                f"{directory}: has a parameter {path}, of none of its config's networks."
            )
        shapes = [tuple(trees[path].shape) for trees in (given, expected)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{directory}: its {path} has shape {shapes[0]}, but its config says {shapes[1]}."
            )
        if not np.isfinite(given[path]).all():
            raise UserError(f"{directory}: its {path} has NaN or infinity.")


def _flat(tree):
    return flatten_dict(dict(tree), sep="/")
