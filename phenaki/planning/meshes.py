"""Which meshes a config can run on, what each costs, and which one to take."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from phenaki import sharding
from phenaki.blocks.sharding import AXES
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.planning import programs, trace
from phenaki.planning.chips import Topology

Sizes = dict[str, int]
USABLE = 0.92  # of a device's memory: the rest is XLA's own and fragmentation
REMATS = ("none", "dots", "full")


def legal(config: ConfigDict, topology: Topology) -> Iterator[Sizes]:
    """Every mesh of the topology's devices that the batch, heads and positions divide over."""
    count, rows = topology.chips, programs.kinds(config).values()
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    network = config.model if config.kind == "maskgit" else config.tokenizer
    _, height, width = factory.video_spec(config).grid()
    for fsdp, sequence, tensor in itertools.product(divisors, repeat=3):
        if count % (fsdp * sequence * tensor):
            continue
        data = count // (fsdp * sequence * tensor)
        parts = data * fsdp * config.optim.accumulate
        if any(size % parts for size in rows) or data % topology.slices:
            continue
        if height % sequence or (height * width) % sequence:
            continue
        if any(network.get(name, tensor) % tensor for name in ("heads", "mlp_dim")):
            continue
        yield dict(data=data, fsdp=fsdp, sequence=sequence, tensor=tensor, slices=topology.slices)


def resolve(config: ConfigDict, topology: Topology) -> Sizes:
    """`config.mesh` on the topology's devices, "whatever is left" filled in."""
    fields = dict(config.mesh)
    sizes = {axis: fields.get(axis, 1) for axis in AXES}
    fixed = math.prod(size for size in sizes.values() if size > 0)
    for axis, size in sizes.items():
        if size == -1:
            sizes[axis] = max(topology.chips // fixed, 1)
    if math.prod(sizes.values()) != topology.chips:
        raise UserError(
            f"config.mesh={sizes} must multiply to the {topology.chips} devices; nearest is "
            f"{sharding.nearest_mesh(sizes, topology.chips)}."
        )
    return sizes | {"slices": topology.slices}


def abstract(sizes: Sizes) -> jax.sharding.AbstractMesh:
    """The mesh of `sizes` without devices."""
    return jax.sharding.AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES)


def memory(config: ConfigDict, sizes: Sizes) -> dict[str, float]:
    """Bytes of one device by kind. Activations are estimated, the others counted.

    The estimate walks the step on one device's samples, shared over "sequence"; over "tensor" it is
    an upper bound.
    """
    mesh = abstract(sizes)
    program = programs.train_step(config)
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
    kinds["activations"] = activations(config, sizes)
    return {kind: float(size) for kind, size in kinds.items()}


def activations(config: ConfigDict, sizes: Sizes) -> float:
    """Estimated bytes of one device for what the step keeps and makes on the way."""
    parts = sizes["data"] * sizes["fsdp"]
    rows = {kind: size // parts for kind, size in programs.kinds(config).items()}
    program = programs.train_step(config, rows)
    known = {leaf.shape for leaf in jax.tree.leaves(program.inputs[:2])}
    known |= {shape[1:] for shape in known}
    known |= {(math.prod(shape[:1]), math.prod(shape[1:])) for shape in known}
    peak = trace.peak_bytes(program.function, *program.inputs, ignore=known - {()})
    return peak / sizes["sequence"]


def _bytes(tree):
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * _item(leaf)
        for leaf in jax.tree.leaves(tree)
    )


def _item(leaf):
    return 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


def traffic(config: ConfigDict, sizes: Sizes) -> float:
    """Bytes that one device receives in a step: an estimate from shapes.

    Parameters split over fsdp and sequence are gathered for both passes and their gradients summed
    in parts, once for clips and once for stills; frozen text encoders are gathered once. Over data,
    gradients are summed whole. Tensor exchanges a layer's outputs three times per pass, sequence
    its keys and values.
    """
    network = config.model if config.kind == "maskgit" else config.tokenizer
    state, frozen, _, _ = programs.train_step(config).inputs
    kinds = programs.kinds(config)
    item = jnp.dtype(factory.dtype(config.dtype)).itemsize
    wide, tensor = sizes["fsdp"] * sizes["sequence"], sizes["tensor"]
    size = item * len(kinds) * programs.count(state.params)
    moved = 3 * size / tensor * (wide - 1) / wide
    moved += item * programs.count(frozen.get("text", {})) / tensor * (wide - 1) / wide
    moved += 2 * size / (tensor * wide) * (sizes["data"] - 1) / sizes["data"]
    if "width" not in network:
        return moved
    spec = factory.video_spec(config)
    rows = sum(count * spec.tokens(None if kind == "video" else 1) for kind, count in kinds.items())
    tokens = rows / (sizes["data"] * sizes["fsdp"])
    layers = network.get("depth") or 2 * (network.space_depth + network.time_depth)
    passes = 3 if config.remat == "full" else 2
    stream = item * tokens * network.width * layers * passes
    moved += 2 * 3 * stream / sizes["sequence"] * (tensor - 1) / tensor
    moved += 2 * stream / tensor * (sizes["sequence"] - 1) / sizes["sequence"]
    return moved


def choose(config: ConfigDict, topology: Topology) -> tuple[Sizes, str]:
    """The mesh that a run should use, and why.

    As many samples at once as divide the batch; what is left shares samples by position. Parameters
    are copied to every device where the training state takes less than a third of its memory.

    Raises:
        UserError: no mesh of these devices divides the batch.
    """
    found = list(legal(config, topology))
    if not found:
        sizes = programs.kinds(config)
        raise UserError(
            f"--topology={topology.name}: no mesh of its {topology.chips} devices divides "
            f"config.data.batch={sizes} and the network's heads and rows of codes; nearest is a "
            f"number of devices such as {math.gcd(*sizes.values())}."
        )
    most = max(sizes["data"] * sizes["fsdp"] for sizes in found)
    found = [sizes for sizes in found if sizes["data"] * sizes["fsdp"] == most]
    least = min(sizes["tensor"] for sizes in found)
    found = [sizes for sizes in found if sizes["tensor"] == least]
    found.sort(key=lambda sizes: sizes["fsdp"])
    limit = topology.chip.memory / 3
    program = programs.train_step(config)
    for sizes in found:
        placed = programs.place(program, abstract(sizes))
        state = _bytes(placed[:2]) + _bytes(placed[0].params)
        if state < limit:
            break
    why = f"{most} devices split the batch"
    if sizes["sequence"] > 1:
        why += f", {sizes['sequence']} share each sample's positions because it divides no further"
    if sizes["tensor"] > 1:
        why += f", {sizes['tensor']} share heads"
    shards = sizes["fsdp"] * sizes["sequence"] * sizes["tensor"]
    share = "all" if shards == 1 else f"1/{shards}"
    why += f"; each holds {share} of the parameters"
    return sizes, f"{why} ({state / 2**30:.2f} GiB of training state and frozen networks)"


def search(config: ConfigDict, topology: Topology, mfu: float) -> list[dict[str, Any]]:
    """Every legal mesh and remat policy that fits, the fastest first.

    A step takes the longer of its products at `mfu` of the peak, recomputation included, and of its
    traffic over the links.
    """
    found = []
    works: dict[str, float] = {}
    held: dict[tuple[str, int], float] = {}
    for remat in REMATS:
        config = ConfigDict({**config.to_dict(), "remat": remat})
        program = programs.train_step(config)
        works[remat] = sum(trace.flops(program.function, *program.inputs).values())
        for sizes in legal(config, topology):
            parts = sizes["data"] * sizes["fsdp"]
            if (remat, parts) not in held:
                held[remat, parts] = activations(config, sizes | {"sequence": 1})
            placed = programs.place(program, abstract(sizes))
            state = _bytes(placed) + _bytes(placed[0].params)
            needed = state + held[remat, parts] / sizes["sequence"]
            compute = works[remat] / (topology.chips * topology.chip.flops * mfu)
            exchange = traffic(config, sizes) / topology.chip.link
            found.append(
                dict(
                    mesh=sizes, remat=remat, memory=needed, compute=compute, exchange=exchange,
                    fits=needed <= USABLE * topology.chip.memory,
                )
            )  # fmt: skip
    return sorted(
        (row for row in found if row["fits"]),
        key=lambda row: (max(row["compute"], row["exchange"]), row["compute"] + row["exchange"]),
    )
