"""Ahead-of-time compilation for TPU topologies: needs libtpu, but no TPU."""

import contextlib
import functools
import importlib.util
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phenaki import sharding
from phenaki.errors import UserError
from phenaki.planning import chips, costs, meshes, programs, schedules
from phenaki.planning.chips import Chip, Topology
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


def measure(
    program: programs.Program, mesh: jax.sharding.Mesh, chip: Chip | None = None
) -> dict[str, Any]:
    """Compiles `program` for `mesh` as a run does; bytes, cycles and FLOPs are of one device.

    "memory" is a device's peak: inputs, outputs that are not donated inputs, and temporaries.
    Kernels take 0 cycles where the compiler writes no schedules (`chips.plan_on_cpu`). With the
    figures of a `chip`, "modelled_seconds" is that of `modelled_seconds`.
    """
    start = time.monotonic()
    inputs = programs.place(program, mesh)
    train = 0 not in program.batch and len(inputs) == 4
    options: dict[str, Any] = {}
    if train:
        state_sharding = jax.tree.map(lambda x: x.sharding, inputs[0])
        options = dict(donate_argnums=0, out_shardings=(state_sharding, None))
    written_to = Path(chips.schedules() or os.devnull)
    for written in written_to.glob("*"):
        written.unlink()  # of an earlier program
    with jax.set_mesh(mesh):
        traced = jax.jit(program.function, **options).trace(*inputs)
        compiled = traced.lower().compile()
    memory: Any = compiled.memory_analysis()
    text: Any = compiled.as_text()
    peak = chip.flops / chip.clock if chip else math.inf
    kernel: dict[str, Any] = {}
    if written_to.is_dir():
        known, bundles = schedules.rounds(traced.jaxpr.jaxpr), schedules.bundles(written_to)
        kernel["kernel"] = functools.partial(schedules.cycles, known=known, scheduled=bundles)
    found = costs.count(text, peak, **kernel)
    measured = {
        "seconds": round(time.monotonic() - start, 1),
        "memory": _peak(memory),
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "flops": sum(found.flops.values()),
        "flops_by_source": found.flops,
        "cycles": found.cycles,
        "kernel_cycles": found.kernels,
        "outside_bytes": found.outside,
        "collectives": {
            kind: {"number": number, "bytes": size}
            for kind, (number, size) in found.collectives.items()
        },
        "text": text,
    }
    if chip:
        measured["modelled_seconds"] = modelled_seconds(found, chip)
    return measured


def _peak(memory):
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + outputs + memory.temp_size_in_bytes


def modelled_seconds(found: costs.Costs, chip: Chip) -> float:
    """Seconds of a step by the compiler's estimate, in one number.

    All cycles, kernels included, one after the other, and all bytes that no matrix product hides,
    at the links' full rate: a model to compare programs by, not a measurement.
    """
    return (found.cycles + found.kernels) / chip.clock + found.outside / chip.link


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
            measured = measure(program, place, topology.chip)
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
            measured["ratio"] = measured["flops"] * topology.devices / whole
        found[name] = measured
    return found


def received(collectives: dict[str, dict[str, Any]]) -> float:
    """Bytes that a device receives by all `collectives`."""
    return sum(costs.received(kind, moved["bytes"]) for kind, moved in collectives.items())


def rows_to_sample(place: jax.sharding.Mesh) -> int:
    """Videos sampled at once: one for each group of devices that splits a sample."""
    return place.shape["data"] * place.shape["fsdp"]
