"""Sharding constraints of activations: the mesh axes, and hints for XLA's partitioner.

Rows of a batch are split over "data" and "fsdp"; parameters over "fsdp", "sequence" and "tensor";
positions of a sequence, or rows of pixels, over "sequence"; heads and hidden units over "tensor".
Without a mesh, or on a mesh of one device, every constraint returns its input. Rules for parameters
are in `phenaki.sharding`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec
from jaxtyping import Array

AXES = ("data", "fsdp", "sequence", "tensor")
BATCH = ("data", "fsdp")
WIDE = ("fsdp", "sequence")  # both hold parts of every parameter
HEADS = ("tensor", "sequence")  # split the heads of a text's keys and values
# Sequences up to this length are never split, and attended without matrix products.
SHORT_SEQUENCE = 16

Axes = Mapping[int, str | tuple[str, ...]]  # dimension -> what splits it
ROWS: Axes = {0: WIDE}  # layouts of stored matrices
COLUMNS: Axes = {1: WIDE}


def axis_size(axis: str) -> int:
    """The size of a mesh axis, 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)


def is_split() -> bool:
    """Whether a mesh of several devices is set.

    Then avoid reshapes that merge split dimensions: XLA's partitioner gathers them first.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > 1


def batch_parts(mesh: jax.sharding.Mesh) -> int:
    """The number of devices that a batch is split over."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def split_tokens(x: Array) -> Array:
    """A batch of sequences [b s d], split over the batch axes and its positions over "sequence"."""
    size = axis_size("sequence")
    # Attention over time has short sequences, one per position in space. They stay unsplit, and
    # "sequence" splits their first axis instead.
    if x.shape[1] <= SHORT_SEQUENCE:
        return constrain(x, {0: (*BATCH, "sequence")})
    return constrain(x, {0: BATCH, 1: "sequence"} if x.shape[1] % size == 0 else {0: BATCH})


def constrain(x: Array, axes: Axes) -> Array:
    """`x` with dimensions split over mesh axes; unchanged where the axes do not divide it."""
    if not is_split():
        return x
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    for dim, names in axes.items():
        names = (names,) if isinstance(names, str) else names
        if x.shape[dim] % math.prod(sizes[name] for name in names):
            return x
    spec = PartitionSpec(*(axes.get(dim) for dim in range(x.ndim)))
    return jax.lax.with_sharding_constraint(x, spec)


def all_gather_with_sharded_gradient(x: Array, axes: Axes, split: Axes) -> Array:
    """`constrain(x, axes)` of a value that is laid out as `split`; its gradient is laid out so."""
    if not is_split():
        return x

    # A plain constraint would hold for the gradient, too: XLA would sum it on every device
    # (all-reduce), though each keeps only its own part (reduce-scatter).
    @jax.custom_vjp
    def gather(x):
        return constrain(x, axes)

    gather.defvjp(lambda x: (gather(x), None), lambda _, grad: (constrain(grad, split),))
    return gather(x)


def replicated(kernel: Array, split: Axes = ROWS) -> Array:
    """`kernel` gathered on every device, unless "tensor" splits heads and hidden units.

    `split` is the layout of the stored parameter, which its gradient gets.
    """
    # With this constraint before a product, XLA gathers a layer's parameters once. Without it, XLA
    # may exchange partial sums of activations instead, or pass the parameters around in pieces, in
    # loops that take its TPU compiler minutes.
    return (
        kernel if axis_size("tensor") > 1 else all_gather_with_sharded_gradient(kernel, {}, split)
    )


def gather_parameters(params: Any, dtype: Any) -> Any:
    """A tree of parameters gathered on every device, matrices in `dtype`, for use in a loop.

    Unchanged where "tensor" splits heads and hidden units.
    """
    if not is_split() or axis_size("tensor") > 1:
        return params

    def whole(path, leaf):
        return constrain(leaf.astype(dtype) if path[-1].key == "kernel" else leaf, {})

    return jax.tree_util.tree_map_with_path(whole, params)


def merge_rows(arrays: Sequence[Array]) -> Array:
    """The rows of several batches as one, an order in which no row changes its device."""
    parts = _row_parts(arrays)
    apart = [x.reshape(parts, len(x) // parts, *x.shape[1:]) for x in arrays]
    return jnp.concatenate(apart, axis=1).reshape(-1, *arrays[0].shape[1:])


def split_rows(merged: Array, arrays: Sequence[Array]) -> list[Array]:
    """The rows of `merged` that come from each of `arrays`, which `merge_rows` merged."""
    parts = _row_parts(arrays)
    apart = merged.reshape(parts, len(merged) // parts, *merged.shape[1:])
    ends = np.cumsum([len(x) // parts for x in arrays])[:-1]
    return [x.reshape(-1, *merged.shape[1:]) for x in jnp.split(apart, ends, axis=1)]


def _row_parts(arrays):
    parts = math.prod(axis_size(axis) for axis in BATCH)
    return 1 if any(len(x) % parts for x in arrays) else parts


def fetch(array: jax.Array) -> np.ndarray:
    """The full value of an array; of one that other hosts hold parts of, every host must call it.

    An array of this host alone is its own, whatever the other hosts do.
    """
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def agreed(answer: bool) -> bool:
    """The first process's answer, for all of them: they may see a new file at different times."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.array(answer)))
