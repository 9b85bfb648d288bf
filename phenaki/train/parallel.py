"""Mesh and path -> PartitionSpec. The only file that knows devices."""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# The first rule that matches a parameter's path gives the axes of its last dimensions; dimensions
# in front (stacked layers) stay whole, and so does a dimension that its axis does not divide.
RULES = (
    (r"attention/qkv/kernel", ("fsdp", None, "tensor", None)),
    (r"attention/qkv/bias", (None, "tensor", None)),
    (r"cross/query/kernel", ("fsdp", "tensor", None)),
    (r"cross/query/bias", ("tensor", None)),
    (r"(attention|cross)/out/kernel", ("tensor", "fsdp")),
    (r"text_key_value/kernel", ("fsdp", None, None, "tensor", None)),
    (r"text_key_value/bias", (None, None, "tensor", None)),
    (r"wi(_\d)?/kernel", ("fsdp", "tensor")),
    (r"wi/bias", ("tensor",)),
    (r"wo/kernel", ("tensor", "fsdp")),
    (r"(query|key|value)/kernel", ("fsdp", "tensor")),  # T5
    (r"(embedding|position)$", (None, "fsdp")),  # 8193 rows divide by nothing: split the width
    (r"kernel", ("fsdp", None)),
)


def make_mesh(
    data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A (data, fsdp, tensor) mesh of `devices` (all); one size may be -1, "whatever is left"."""
    sizes = dict(zip(AXES, (data, fsdp, tensor), strict=True))
    devices = jax.devices() if devices is None else devices
    free = [axis for axis in AXES if sizes[axis] == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or fixed < 1 or len(devices) % fixed or (not free and fixed != len(devices)):
        nearest = max(
            n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and n <= max(fixed, 1)
        )
        raise UserError(
            f"config.mesh={sizes} must multiply to the {len(devices)} devices, with at most one "
            f"-1; nearest is data=-1 with fsdp*tensor={nearest}."
        )
    if free:
        sizes[free[0]] = len(devices) // fixed
    return Mesh(np.array(devices).reshape([sizes[axis] for axis in AXES]), AXES)


def spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The PartitionSpec of the parameter (or optimiser moment) at `path`."""
    for pattern, axes in RULES:
        if re.search(pattern, path) and len(shape) >= len(axes):
            whole = (None,) * (len(shape) - len(axes))
            sizes = shape[len(whole) :]
            fitting = (
                axis if axis and size % mesh.shape[axis] == 0 else None
                for axis, size in zip(axes, sizes, strict=True)
            )
            return PartitionSpec(*whole, *fitting)
    return PartitionSpec()


def shardings(tree, mesh: Mesh):
    """NamedShardings for every leaf of a tree of arrays or shapes."""

    def one(path, leaf):
        name = "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
        return NamedSharding(mesh, spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(one, tree)


def global_batch(batch, mesh: Mesh):
    """This host's numpy rows as global arrays, split over the data and fsdp axes."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def check_batch(field: str, size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises `UserError` unless `size` rows divide over the batch axes and micro-batches."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
    if size % parts:
        nearest = max(round(size / parts), 1) * parts
        raise UserError(
            f"{field}={size} must be a multiple of {parts} (data and fsdp devices times "
            f"config.optim.accumulate); nearest is {nearest}."
        )
