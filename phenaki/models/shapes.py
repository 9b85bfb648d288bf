"""Compares the parameters of a model that others wrote with the networks of its config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from phenaki.errors import UserError
from phenaki.types import Text, VideoSpec


def of_networks(networks: Mapping[str, Any], spec: VideoSpec) -> dict[str, Any]:
    """The shapes of the parameters of tokenizer, maskgit and, of a model of text, text."""
    return jax.eval_shape(lambda: _initial(networks, spec))


def _initial(networks, spec):
    key, clip = jax.random.key(0), jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
    tokens, text = jnp.zeros((1, spec.tokens()), jnp.int32), None
    found = {"tokenizer": networks["tokenizer"].init(key, clip)}
    if networks["text"] is not None:
        length = 1  # no parameter depends on it
        embeddings = jnp.zeros((1, length, networks["maskgit"].text_dim))
        text = Text(embeddings, jnp.ones((1, length), bool))
        found["text"] = networks["text"].init(key, jnp.zeros((1, length), jnp.int32))
    found["maskgit"] = networks["maskgit"].init(key, tokens, text)
    return {name: variables.get("params", {}) for name, variables in found.items()}


def check(
    directory: object, params: Mapping[str, Any], networks: Mapping[str, Any], spec: VideoSpec
) -> None:
    """Checks that the `networks` of a config can take `params`, and that these are numbers.

    Raises:
        UserError: one is missing, of no network, of another shape or not finite; by its name.
    """
    expected, given = (
        {f"{name}/{path}": x for name, tree in trees.items() for path, x in _flat(tree).items()}
        for trees in (of_networks(networks, spec), params)
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
