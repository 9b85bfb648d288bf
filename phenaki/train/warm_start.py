"""Starting a C-ViViT from another one's parameters, also from one trained on images only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from phenaki.errors import UserError


def warm_start(params: Mapping[str, Any], source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`params`, a fresh C-ViViT's, with the values of `source`, named `where` in errors.

    A tokenizer that saw images only has no stem and head for the later frames: those start as the
    first frame's, so that a clip that stands still is encoded and decoded as its image is. Tables
    of positions in time that are too short go on with their last row.

    Raises:
        UserError: a parameter of another shape.
    """
    found = flatten_dict(source, sep="/")
    result = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        value = np.asarray(found[path] if path in found else _from_first(path, leaf, found, where))
        if path.endswith("time_position") and len(value) < len(leaf):
            value = np.concatenate([value, np.repeat(value[-1:], len(leaf) - len(value), axis=0)])
        if value.shape != leaf.shape:
            raise UserError(
                f"config.start={where}: its {path} has shape {value.shape}, this config's "
                f"{leaf.shape}; only the number of frames may differ."
            )
        result[path] = value.astype(leaf.dtype)
    return unflatten_dict(result, sep="/")


def _from_first(path, leaf, found, where):
    twin = path.replace("rest_", "first_")
    if twin not in found:
        raise UserError(f"config.start={where}: is no C-ViViT; it has no {path}.")
    first = np.asarray(found[twin])
    if path == "rest_in/bias":
        return first
    axis = 0 if path.startswith("rest_in") else -1  # pixels go in, or come out
    repeats = leaf.shape[axis] // first.shape[axis]  # frames of a tubelet
    tiled = np.concatenate([first] * repeats, axis=axis)
    return tiled / repeats if path == "rest_in/kernel" else tiled
