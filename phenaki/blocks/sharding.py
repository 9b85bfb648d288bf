"""Where activations lie on a mesh: the axes' names, and hints for XLA's partitioner.

Rows of a batch are split over "data" and "fsdp"; parameters over "fsdp", "sequence" and "tensor";
positions of a sequence, or rows of pixels, over "sequence"; heads and hidden units over "tensor".
Nothing here does anything where no mesh is set, or one of a single device.
"""

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec
from jaxtyping import Array

AXES = ("data", "fsdp", "sequence", "tensor")
BATCH = ("data", "fsdp")
WIDE = ("fsdp", "sequence")  # both hold parts of every parameter
SHORT_SEQUENCE = (
    16  # sequences up to this length are never split, and attended without matrix products
)

Axes = Mapping[int, str | tuple[str, ...]]  # dimension -> what splits it


def axis_size(axis: str) -> int:
    """The size of a mesh axis, 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(axis, 1)


def is_split() -> bool:
    """Whether a mesh of several devices is set.

    A reshape that merges split dimensions makes XLA's partitioner gather them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.size > 1


def batch_parts(mesh: jax.sharding.Mesh) -> int:
    """Among how many devices a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def split_tokens(x: Array) -> Array:
    """A batch of sequences [b s d], split over the batch axes and its positions over "sequence".

    Short sequences are whole: those of attention over time, of which there is one per position, so
    that "sequence" splits their first axis.
    """
    size = axis_size("sequence")
    if x.shape[1] <= SHORT_SEQUENCE:
        return constrain(x, {0: (*BATCH, "sequence")})
    return constrain(x, {0: BATCH, 1: "sequence"} if x.shape[1] % size == 0 else {0: BATCH})


def constrain(x: Array, axes: Axes) -> Array:
    """`x` with its dimensions split over mesh axes; itself where there is one device, or no mesh,
    or where they do not divide it."""
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
    """`constrain(x, axes)` of a value that is laid out as `split`, and so is its gradient.

    A constraint alone holds for the gradient, too: every device would be sent all of a sum of which
    it keeps its own part.
    """

    @jax.custom_vjp
    def gather(x):
        return constrain(x, axes)

    gather.defvjp(lambda x: (gather(x), None), lambda _, grad: (constrain(grad, split),))
    return gather(x) if is_split() else x


def replicated(kernel: Array, split: int = 0) -> Array:
    """`kernel` on every device, where heads and hidden units are not split.

    Said before a product, it has XLA gather a layer's parameters once. Left alone, it may exchange
    partial sums of the activations instead, or trade the parameters in pieces by loops that its TPU
    compiler needs minutes for. `split` is the dimension that the parameter is split along.
    """
    return (
        kernel
        if axis_size("tensor") > 1
        else all_gather_with_sharded_gradient(kernel, {}, {split: WIDE})
    )


def fetch(array: jax.Array) -> np.ndarray:
    """The whole of an array that may lie on other hosts, too; to be called by all of them."""
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def agreed(answer: bool) -> bool:
    """The first process's answer, for all: they may see a new file at different times."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(np.array(answer)))
