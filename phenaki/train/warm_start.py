"""Warm start of a network from another one; of a C-ViViT also from one trained on images only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from phenaki.errors import UserError


def warm_start(params: Mapping[str, Any], source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The freshly initialised `params` of a C-ViViT with the values of `source`.

    A tokenizer of images only has no stem and head for the later frames. They start as those of
    the first frame: a clip of equal frames is then encoded and decoded like the image. Position
    tables over time that are too short are extended with their last row, those that are too long
    are cut: time is causal, so that fewer frames are what the first ones were. `where` names
    `source` in errors.

    Raises:
        UserError: `source` is no C-ViViT, or a parameter has another shape.
    """
    found = flatten_dict(source, sep="/")
    result = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        value = np.asarray(found[path] if path in found else _from_first(path, leaf, found, where))
        if path.endswith("time_position"):
            last = np.repeat(value[-1:], max(len(leaf) - len(value), 0), axis=0)
            value = np.concatenate([value, last])[: len(leaf)]
        if value.shape != leaf.shape:
            raise UserError(
                f"config.start={where}: its {path} has shape {value.shape}, this config's "
                f"{leaf.shape}; only config.video.frames may differ, config.tokenizer and the "
                "other sizes of config.video are those of the start."
            )
        result[path] = value.astype(leaf.dtype)
    return unflatten_dict(result, sep="/")


def same_shapes(params: Mapping[str, Any], source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of `source` in the dtypes of the freshly initialised `params`.

    Raises:
        UserError: a parameter is missing, or of another shape; `where` names `source`.
    """
    fresh, found = flatten_dict(params, sep="/"), flatten_dict(source, sep="/")
    for path in dict.fromkeys((*fresh, *found)):
        shapes = [np.shape(tree[path]) if path in tree else None for tree in (found, fresh)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"config.start={where}: its {path} has shape {shapes[0]}, this config's "
                f"{shapes[1]}; config.model and the sizes of config.text are those of the start."
            )
    return unflatten_dict(
        {path: np.asarray(found[path]).astype(leaf.dtype) for path, leaf in fresh.items()}, sep="/"
    )


def _from_first(path, leaf, found, where):
    twin = path.replace("rest_", "first_")
    if twin not in found:
        raise UserError(f"config.start={where}: is not a C-ViViT; it has no {path}.")
    first = np.asarray(found[twin])
    if path == "rest_in/bias":
        return first
    # A tubelet's pixels are the stem's input axis and the head's output axis.
    axis = 0 if path.startswith("rest_in") else -1
    repeats = leaf.shape[axis] // first.shape[axis]  # frames of a tubelet
    # The stem sums over the frames: a mean of equal frames gives what the first frame gives.
    tiled = np.concatenate([first] * repeats, axis=axis)
    return tiled / repeats if path == "rest_in/kernel" else tiled
