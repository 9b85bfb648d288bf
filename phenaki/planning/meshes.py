"""Meshes that a workload can run on: which are legal, their memory and traffic, and a choice."""

import itertools
import math
from collections.abc import Iterator

import jax
import numpy as np

from phenaki import sharding
from phenaki.blocks.sharding import AXES
from phenaki.errors import UserError
from phenaki.planning import programs, trace
from phenaki.planning.chips import Topology
from phenaki.planning.programs import Program, Workload

MeshShape = dict[str, int]  # devices by axis, and "slices"


def legal(workload: Workload, topology: Topology) -> Iterator[MeshShape]:
    """Every mesh of the topology's devices that the batch, heads and positions divide over."""
    count = topology.devices
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    _, height, width = workload.spec.grid()
    for fsdp, sequence, tensor in itertools.product(divisors, repeat=3):
        if count % (fsdp * sequence * tensor):
            continue
        data = count // (fsdp * sequence * tensor)
        parts = data * fsdp * workload.accumulate
        if any(rows % parts for rows in workload.samples.values()) or data % topology.slices:
            continue
        if height % sequence or (height * width) % sequence:
            continue
        if any((size or tensor) % tensor for size in (workload.heads, workload.mlp_dim)):
            continue
        yield dict(data=data, fsdp=fsdp, sequence=sequence, tensor=tensor, slices=topology.slices)


def resolve(workload: Workload, topology: Topology) -> MeshShape:
    """`config.mesh` on the topology's devices, -1 filled in.

    Raises:
        UserError: the mesh has another number of devices, or of slices.
    """
    slices = workload.mesh.get("slices", 1)
    if slices not in (1, topology.slices):
        raise UserError(
            f"config.mesh.slices={slices}: {topology.name} has {topology.slices}; nearest is "
            f"config.mesh.slices={topology.slices}."
        )
    sizes = {axis: workload.mesh.get(axis, 1) for axis in AXES}
    fixed = math.prod(size for size in sizes.values() if size > 0)
    for axis, size in sizes.items():
        if size == -1:
            sizes[axis] = max(topology.devices // fixed, 1)
    if math.prod(sizes.values()) != topology.devices:
        raise UserError(
            f"config.mesh={sizes} must multiply to the {topology.devices} devices; nearest is "
            f"{sharding.nearest_mesh(sizes, topology.devices)}."
        )
    return sizes | {"slices": topology.slices}


def process_grid(topology: Topology, sizes: MeshShape) -> np.ndarray:
    """The host [data fsdp sequence tensor] of each device, where hosts follow each other.

    A TPU's mesh has another order, which its compiler knows: `compiled.mesh`.
    """
    hosts = np.arange(topology.devices) // topology.chip.per_host
    return hosts.reshape([sizes[axis] for axis in AXES])


def abstract(sizes: MeshShape) -> jax.sharding.AbstractMesh:
    """A mesh of `sizes` without devices."""
    return jax.sharding.AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES)


def memory(workload: Workload, sizes: MeshShape) -> dict[str, float]:
    """Bytes of one device by kind; activations are estimated, everything else is counted.

    The estimate is of the step on one device's samples, divided over "sequence"; over "tensor" it
    is an upper bound.
    """
    mesh = abstract(sizes)
    program = workload.train_step()
    state, frozen, batch, _ = programs.place(program, mesh)
    parameters = _bytes(state.params)
    kinds = {
        "parameters": parameters,
        "optimiser": _bytes(state.opt_state),
        "average": _bytes(state.ema),
        "discriminator and counts": _bytes(state.extra),
        "frozen": _bytes(frozen),
        "batch": _bytes(batch),
        "gradients": parameters,
    }
    if "discriminator" in (state.extra or ()):
        kinds["gradients"] += _bytes(state.extra["discriminator"]["params"])
    kinds["activations"] = activations(workload, sizes)
    return {kind: float(size) for kind, size in kinds.items()}


def activations(workload: Workload, sizes: MeshShape) -> float:
    """Estimated bytes of one device for the step's intermediate values."""
    parts = sizes["data"] * sizes["fsdp"]
    samples = {kind: size // parts for kind, size in workload.samples.items()}
    program = workload.train_step(samples)
    known = {leaf.shape for leaf in jax.tree.leaves(program.inputs[:2])}
    known |= {shape[1:] for shape in known}
    known |= {(math.prod(shape[:1]), math.prod(shape[1:])) for shape in known}
    peak = trace.peak_bytes(program.function, *program.inputs, ignore=known - {()})
    return peak / sizes["sequence"]


def state_bytes(step: Program, sizes: MeshShape) -> int:
    """Bytes of one device for the state of a train step, frozen networks and gradients."""
    held = step._replace(inputs=step.inputs[:2], batch=frozenset())
    placed = programs.place(held, abstract(sizes))
    return _bytes(placed) + _bytes(placed[0].params)


def _bytes(tree):
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * _item(leaf)
        for leaf in jax.tree.leaves(tree)
    )


def _item(leaf):
    return 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


def traffic(workload: Workload, sizes: MeshShape, step: Program | None = None) -> float:
    """Bytes that one device receives in a step, `workload`'s or `step`: an estimate from shapes.

    Parameters split over fsdp and sequence are gathered for both passes of every micro-batch, and
    their gradients reduce-scattered: MaskGIT's once, a tokenizer's for clips and for images. Frozen
    text encoders are gathered once.
    Over data, whole gradients are all-reduced. Tensor exchanges a layer's outputs three times per
    pass, sequence its keys and values.
    """
    state, frozen, _, _ = (step or workload.train_step()).inputs
    item, samples = workload.itemsize, workload.samples
    wide, tensor = sizes["fsdp"] * sizes["sequence"], sizes["tensor"]
    apart = 1 if workload.kind == "maskgit" else len(samples)
    size = item * apart * workload.accumulate * programs.count(state.params)
    moved = 3 * size / tensor * (wide - 1) / wide
    moved += item * programs.count(frozen.get("text", {})) / tensor * (wide - 1) / wide
    moved += 2 * size / (tensor * wide) * (sizes["data"] - 1) / sizes["data"]
    if workload.width is None or workload.layers is None:
        return moved
    total = sum(
        count * workload.spec.tokens(None if kind == "video" else 1)
        for kind, count in samples.items()
    )
    tokens = total / (sizes["data"] * sizes["fsdp"])
    passes = 3 if workload.remat == "full" else 2
    stream = item * tokens * workload.width * workload.layers * passes
    moved += 2 * 3 * stream / sizes["sequence"] * (tensor - 1) / tensor
    moved += 2 * stream / tensor * (sizes["sequence"] - 1) / sizes["sequence"]
    return moved


def choose(workload: Workload, topology: Topology) -> tuple[MeshShape, str]:
    """(the mesh that a run should use, why).

    As many devices as possible split the batch; the rest split each sample by position. Parameters
    are replicated where the training state takes less than a third of a device's memory.

    Raises:
        UserError: no mesh of these devices divides the batch.
    """
    found = list(legal(workload, topology))
    if not found:
        sizes = workload.samples
        raise UserError(
            f"--topology={topology.name}: no mesh of its {topology.devices} devices divides "
            f"config.data.batch={sizes} and the network's heads and rows of tokens; nearest is a "
            f"number of devices such as {math.gcd(*sizes.values())}."
        )
    most = max(sizes["data"] * sizes["fsdp"] for sizes in found)
    found = [sizes for sizes in found if sizes["data"] * sizes["fsdp"] == most]
    least = min(sizes["tensor"] for sizes in found)
    found = [sizes for sizes in found if sizes["tensor"] == least]
    found.sort(key=lambda sizes: sizes["fsdp"])
    limit = topology.chip.memory / 3
    step = workload.train_step()
    for sizes in found:
        state = state_bytes(step, sizes)
        if state < limit:
            break
    why = f"{most} devices split the batch"
    if sizes["sequence"] > 1:
        why += f", {sizes['sequence']} split each sample's positions as it divides no further"
    if sizes["tensor"] > 1:
        why += f", {sizes['tensor']} split heads"
    shards = sizes["fsdp"] * sizes["sequence"] * sizes["tensor"]
    held = "all" if shards == 1 else f"1/{shards}"
    why += f"; each holds {held} of the parameters"
    return sizes, f"{why} ({state / 2**30:.2f} GiB of training state and frozen networks)"
