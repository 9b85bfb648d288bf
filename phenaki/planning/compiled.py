"""Ahead-of-time compilation for TPU topologies: needs libtpu, but no TPU."""

import contextlib
import importlib.util
import time
from typing import Any

import jax
import numpy as np

from phenaki import sharding
from phenaki.errors import UserError
from phenaki.planning import hlo, meshes, programs
from phenaki.planning.chips import Topology
from phenaki.planning.programs import Workload


def available() -> bool:
    """Whether the TPU compiler is installed."""
    return importlib.util.find_spec("libtpu") is not None


def devices(topology: Topology) -> list[Any]:
    """The devices of a topology, for meshes to compile for; nothing can run on them.

    Raises:
        UserError: it is no TPU, libtpu is missing, or the compiler does not know the grid.
    """
    if topology.platform != "tpu":
        raise UserError(f"--topology={topology.name}: only programs for TPUs are compiled ahead.")
    if not available():
        raise UserError("--compile needs the TPU compiler: pip install 'phenaki[tpu]'.")
    from jax.experimental import topologies

    grid = "x".join(map(str, topology.shape))
    more: dict[str, Any] = dict(num_slices=topology.slices) if topology.slices > 1 else {}
    if topology.kind == "v4":
        more["chip_config_name"] = "megacore"  # a chip is one device, as on a pod
    try:
        found = topologies.get_topology_desc(f"{topology.kind}:{grid}", "tpu", **more)
    except Exception as error:  # of the plugin's own types
        raise UserError(f"--topology={topology.name}: {error}") from error
    return list(found.devices)


def measure(program: programs.Program, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Compiles `program` for `mesh` as a run does; bytes and FLOPs are of one device.

    "memory" is a device's peak: inputs, outputs that are not donated inputs, and temporaries.
    """
    start = time.monotonic()
    inputs = programs.place(program, mesh)
    train = 0 not in program.batch and len(inputs) == 4
    options: dict[str, Any] = {}
    if train:
        state_sharding = jax.tree.map(lambda x: x.sharding, inputs[0])
        options = dict(donate_argnums=0, out_shardings=(state_sharding, None))
    with jax.set_mesh(mesh):
        compiled = jax.jit(program.function, **options).lower(*inputs).compile()
    memory: Any = compiled.memory_analysis()
    text: Any = compiled.as_text()
    costs = hlo.costs(text)
    return {
        "seconds": round(time.monotonic() - start, 1),
        "memory": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "flops": sum(costs.flops.values()),
        "flops_by_source": costs.flops,
        "cycles": costs.cycles,
        "collectives": {
            kind: {"number": number, "bytes": size}
            for kind, (number, size) in costs.collectives.items()
        },
        "text": text,
    }


def mesh(topology: Topology, sizes: dict[str, int]) -> jax.sharding.Mesh:
    """The mesh that a run with `config.mesh` = `sizes` makes of the topology's devices."""
    return sharding.make_mesh(**sizes, devices=devices(topology))


def process_grid(topology: Topology, sizes: dict[str, int]) -> np.ndarray:
    """The host [data fsdp sequence tensor] of each device of a mesh.

    A TPU's order is its compiler's, where that is installed and knows the topology; otherwise hosts
    follow each other.
    """
    if topology.platform == "tpu" and available():
        with contextlib.suppress(UserError):
            return sharding.process_grid(mesh(topology, sizes))
    return meshes.process_grid(topology, sizes)


def report(workload: Workload, topology: Topology, made: dict[str, Any]) -> dict[str, Any]:
    """Compiles the train step, and stage 2's sampler, for the mesh of the plan `made`.

    "ratio" is the FLOPs of all devices over those of the model: recomputation and duplicated work.
    Seconds are at a chip's peak and at the links' full rate.

    Raises:
        UserError: the program does not fit into a device's memory.
    """
    place = mesh(topology, made["mesh"])
    to_compile = {"train step": workload.train_step()}
    if workload.generator is not None:
        to_compile["sampler"] = workload.sampler(rows_to_sample(place))
    found = {}
    for name, program in to_compile.items():
        try:
            measured = measure(program, place)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(f"the {name} does not fit {topology.name}: {error}") from error
        measured["compute_seconds"] = measured["flops"] / topology.chip.flops
        measured["exchange_seconds"] = received(measured["collectives"]) / topology.chip.link
        measured.pop("text")
        measured.pop("flops_by_source")
        if name == "train step":
            whole = sum(made["flops"].values())
            measured["ratio"] = measured["flops"] * topology.chips / whole
        found[name] = measured
    return found


def received(collectives: dict[str, dict[str, Any]]) -> float:
    """Bytes that a device receives; an all-reduce is a reduce-scatter and an all-gather."""
    return sum(
        moved["bytes"] * (2 if kind == "all-reduce" else 1) for kind, moved in collectives.items()
    )


def rows_to_sample(place: jax.sharding.Mesh) -> int:
    """Videos sampled at once: one for each group of devices that splits a sample."""
    return place.shape["data"] * place.shape["fsdp"]
