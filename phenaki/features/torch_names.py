"""PyTorch state dicts to Flax parameters: names, axes, and a check that every tensor is used."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from phenaki.errors import UserError

Shapes = dict[str, tuple[int, ...]]
# From PyTorch's kernels to ours: [out in] -> [in out] and [out in h w] -> [h w in out].
KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}


def shapes_of(module: nn.Module, *inputs: Any) -> Shapes:
    """Shapes of the parameters by path ("conv1_1/kernel"); nothing is computed."""
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in flatten(params).items()}


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves of nested dicts by path."""
    return flax.traverse_util.flatten_dict(params, sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts of leaves by path."""
    return flax.traverse_util.unflatten_dict(dict(leaves), sep="/")


def torch_axes(path: str, rank: int) -> tuple[int, ...]:
    """The permutation of axes that turns PyTorch's array into ours."""
    return KERNEL_AXES[rank] if path.endswith("kernel") else tuple(range(rank))


def from_torch(
    tensors: Mapping[str, np.ndarray],
    shapes: Shapes,
    torch_name: Callable[[str], str],
    dropped: str = "$.",
) -> dict[str, Any]:
    """Float32 parameters, nested, of the given `shapes` from a PyTorch state dict.

    `torch_name` gives the state dict's name of each path; tensors whose names match the regular
    expression `dropped` at their start are left out. Raises UserError for the first tensor that is
    missing, unexpected or of another shape, in the file's own names and axes.
    """
    names = {torch_name(path): path for path in shapes}
    for name in names:
        if name not in tensors:
            raise UserError(f"tensor {name!r} is missing.")
    for name in tensors:
        if name not in names and not re.match(dropped, name):
            raise UserError(f"tensor {name!r} is unexpected.")
    params = {}
    for name, path in names.items():
        axes = torch_axes(path, len(shapes[path]))
        expected = tuple(shapes[path][i] for i in np.argsort(axes))
        if tensors[name].shape != expected:
            raise UserError(f"tensor {name!r} has shape {tensors[name].shape}, not {expected}.")
        params[path] = np.ascontiguousarray(tensors[name].transpose(axes), np.float32)
    return unflatten(params)
