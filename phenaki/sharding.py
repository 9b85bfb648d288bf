"""The device mesh, and parameter shardings by path."""

import importlib.util
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from phenaki import hosts
from phenaki.blocks.sharding import AXES, HEADS, WIDE, batch_parts
from phenaki.blocks.sharding import BATCH as BATCH_AXES
from phenaki.data.host_rows import HostRows
from phenaki.errors import UserError

TPU_DEVICES = (Path("/dev/accel0"), Path("/dev/vfio/0"))  # of older and of newer TPU VMs
BATCH = PartitionSpec(BATCH_AXES)  # of the rows of a batch

# The first rule that matches a parameter's path gives the mesh axes of its last dimensions. Leading
# dimensions (stacked layers) are not split, nor is a dimension that its axes do not divide.
RULES = (
    (r"attention/qkv/kernel", (WIDE, None, "tensor", None)),
    (r"attention/qkv/bias", (None, "tensor", None)),
    (r"cross/query/kernel", (WIDE, "tensor", None)),
    (r"cross/query/bias", ("tensor", None)),
    (r"(layers_\d+/attention|cross)/out/kernel", (("tensor", *WIDE), None)),  # layers_: T5
    (r"attention/out/kernel", ("tensor", WIDE)),  # rows are two axes on a mesh: join_product
    (r"text_key_value/kernel", ("fsdp", None, None, HEADS, None)),
    (r"text_key_value/bias", (None, None, "tensor", None)),
    (r"wi/kernel", (WIDE, "tensor")),
    (r"wi/bias", ("tensor",)),
    (r"wo/kernel", (("tensor", *WIDE), None)),
    (r"(query|key|value|wi_\d)/kernel", (None, ("tensor", *WIDE))),  # T5
    (r"(embedding|position)$", (None, WIDE)),  # 8193 rows divide by nothing useful
    (r"kernel", (WIDE, None)),
)


def start(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Initialises `jax.distributed`; call it before any device is touched.

    With `coordinator` (host:port), the number of `processes` and the index of this `process`, by
    these; without, on workers of a TPU slice and in SLURM steps of several tasks, by JAX's own
    detection. Anywhere else the process stays alone. A second call does nothing.

    Raises:
        UserError: only some of the three are given, or there is no such process.
    """
    given = (bool(coordinator), processes > 0, process >= 0)
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --processes and --process go together: host:port of process 0, the "
            "number of processes, and the index of this one, from 0."
        )
    if process >= max(processes, 1):
        raise UserError(
            f"--process={process}: must be 0 to {processes - 1}, an index of the --processes="
            f"{processes}."
        )
    if jax.distributed.is_initialized():
        return
    if all(given):
        # Only when all have come does anything else happen.
        sys.stderr.write(f"process {process} of {processes}: joining at {coordinator}\n")
        # JAX aborts after five minutes, with the stack of its library.
        with hosts.waiting(f"the other processes of {processes} at {coordinator}"):
            jax.distributed.initialize(coordinator, processes, process)
    elif in_job(os.environ):
        with hosts.waiting("the other processes of the job"):
            jax.distributed.initialize()
    else:
        return
    hosts.number_logs(jax.process_index)
    hosts.watch()


def in_job(environment: Mapping[str, str]) -> bool:
    """Whether JAX detects the other processes of the job: on a TPU worker, or in a SLURM step."""
    workers = environment.get("TPU_WORKER_HOSTNAMES", "")
    tpu = "," in workers or "MEGASCALE_COORDINATOR_ADDRESS" in environment
    # A TPU VM that GKE did not create has no such variables, but it has the devices.
    devices = any(path.exists() for path in TPU_DEVICES)
    tpu = tpu or (devices and importlib.util.find_spec("libtpu") is not None)
    slurm = int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment
    return (tpu and environment.get("JAX_PLATFORMS", "tpu").startswith("tpu")) or slurm


def make_mesh(
    data: int,
    fsdp: int,
    tensor: int,
    sequence: int = 1,
    slices: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A (data, fsdp, sequence, tensor) mesh of `devices` (all).

    One size may be -1: all remaining devices. `slices` are groups of devices that only the data
    centre's network connects. They lie along the data axis, so that only gradients are exchanged
    between them.

    Raises:
        UserError: the sizes do not multiply to the devices, or the slices do not divide `data`.
    """
    sizes = dict(data=data, fsdp=fsdp, sequence=sequence, tensor=tensor)
    devices = jax.devices() if devices is None else devices
    free = [axis for axis in sizes if sizes[axis] == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or fixed < 1 or len(devices) % fixed or (not free and fixed != len(devices)):
        raise UserError(
            f"config.mesh={sizes} must multiply to the {len(devices)} devices, with at most one "
            f"-1; nearest is {nearest_mesh(sizes, len(devices))}."
        )
    if free:
        sizes[free[0]] = len(devices) // fixed
    if slices < 1 or sizes["data"] % slices:
        raise UserError(
            f"config.mesh.slices={slices} must divide the data axis, {sizes['data']}; nearest is "
            f"{max(n for n in range(1, max(slices, 1) + 1) if sizes['data'] % n == 0)}."
        )
    return Mesh(_grid(devices, tuple(sizes.values()), slices), AXES)


def nearest_mesh(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """The sizes at or below `sizes` that multiply to `count`; the data axis takes the rest."""
    nearest, left = {"data": 1}, count
    for axis in ("tensor", "sequence", "fsdp"):
        wanted = max(sizes[axis], 1) if sizes[axis] != -1 else left
        nearest[axis] = max(n for n in range(1, min(wanted, left) + 1) if left % n == 0)
        left //= nearest[axis]
    return {axis: left if axis == "data" else nearest[axis] for axis in AXES}


def _grid(devices, shape, slices):
    """The devices in an order where neighbours on a mesh axis are neighbours in the network."""
    if devices[0].platform == "tpu" and len(devices) > 1:
        if slices > 1:
            inner = (shape[0] // slices, *shape[1:])
            outer = (slices, *[1] * (len(shape) - 1))
            return mesh_utils.create_hybrid_device_mesh(
                inner, outer, devices, allow_split_physical_axes=True
            )
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    groups = {getattr(device, "slice_index", None) or 0 for device in devices}
    if len(groups) > 1:  # each slice is a contiguous part of the data axis
        devices = sorted(devices, key=lambda device: (device.slice_index, device.id))
    return np.array(devices).reshape(shape)


def spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The PartitionSpec of the parameter, or of its optimiser moment, at `path` ("a/b/kernel")."""
    for pattern, axes in RULES:
        if re.search(pattern, path) and len(shape) >= len(axes):
            leading = (None,) * (len(shape) - len(axes))
            sizes = shape[len(leading) :]
            fitting = (_fitting(axis, size, mesh) for axis, size in zip(axes, sizes, strict=True))
            return PartitionSpec(*leading, *fitting)
    return PartitionSpec()


def _fitting(axes, size, mesh):
    """The longest prefix of `axes` that divides `size`: a tuple, one name, or None."""
    if axes is None:
        return None
    axes = (axes,) if isinstance(axes, str) else axes
    axes = tuple(axis for axis in axes if mesh.shape[axis] > 1)
    while axes and size % math.prod(mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    return axes[0] if len(axes) == 1 else axes or None


def shardings(tree, mesh: Mesh | AbstractMesh):
    """The NamedSharding of every leaf of a tree of arrays or shapes."""

    def sharding(path, leaf):
        name = "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in path)
        return NamedSharding(mesh, spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def process_grid(mesh: Mesh) -> np.ndarray:
    """The process [data fsdp sequence tensor] of each device of a mesh."""
    return np.vectorize(lambda device: device.process_index, otypes=[int])(mesh.devices)


def global_batch(batch, mesh: Mesh, rows: Mapping[str, HostRows]):
    """Global arrays, split over the data and fsdp axes, from the `rows` of this host (numpy).

    `batch` and `rows` are by kind; `rows` are those of `host_rows` on this mesh.

    Raises:
        ValueError: an array has other rows.
    """
    return {kind: _global(kind, part, mesh, rows[kind]) for kind, part in batch.items()}


def _global(kind: str, part, mesh: Mesh, rows: HostRows):
    place = {row: index for index, row in enumerate(rows.rows)}

    def one(array):
        if len(array) != len(rows):
            raise ValueError(
                f"{kind}: a batch of {len(array)} rows; this host loads {len(rows)} of {rows.total}"
            )

        def shard(index):
            first, end, _ = index[0].indices(rows.total)
            return array[place[first] : place[first] + end - first]

        shape = (rows.total, *array.shape[1:])
        return jax.make_array_from_callback(shape, NamedSharding(mesh, BATCH), shard)

    return jax.tree.map(one, part)


def split_rows(rows, mesh: Mesh, *, pad: bool = False):
    """A tree of arrays with as many rows each, split over the data and fsdp axes.

    Where the mesh spans hosts, each host passes all rows, the same as the others. With `pad`,
    copies of the last row complete a number of rows that does not divide.

    Raises:
        UserError: the rows do not divide, without `pad`.
    """
    parts, count = batch_parts(mesh), len(jax.tree.leaves(rows)[0])
    if count % parts and not pad:
        raise UserError(
            f"{count} samples must be a multiple of the mesh's {parts} (data times fsdp); "
            f"nearest is {max(round(count / parts), 1) * parts}."
        )
    if count % parts:
        index = np.minimum(np.arange(count + -count % parts), count - 1)
        rows = jax.tree.map(lambda x: x[index], rows)
    split = NamedSharding(mesh, BATCH)
    if split.is_fully_addressable:
        return jax.device_put(rows, split)
    return jax.tree.map(lambda x: _of_all_hosts(x, split), rows)


def _of_all_hosts(x, split: NamedSharding) -> jax.Array:
    """An array that each host has, or all have together, as one that `split` distributes."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _of_all_hosts(jax.random.key_data(x), split)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return jax.jit(lambda x: x, out_shardings=split)(x)
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, split, lambda index: whole[index])


def check_batch(field: str, size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Checks that `size` rows, of `field`, divide over the batch axes and micro-batches.

    Raises:
        UserError: they do not; names the nearest size that does.
    """
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    parts = devices * accumulate
    if size % parts:
        nearest = max(round(size / parts), 1) * parts
        # As many devices as divide the rows of a micro-batch; the others would share a sample.
        fewer = math.gcd(size // accumulate, devices)
        sequence = mesh.shape["sequence"] * devices // fewer
        other = f", or config.mesh.sequence={sequence}, so that several devices share a sample"
        raise UserError(
            f"{field}={size} must be a multiple of {parts} (data and fsdp devices times "
            f"config.optim.accumulate); nearest is {nearest}{'' if size % accumulate else other}."
        )
