"""The plan of a run: sizes, FLOPs, memory, mesh, time and data, as one JSON-able dictionary."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phenaki.data.host_rows import loads_per_row
from phenaki.planning import meshes, programs, trace
from phenaki.planning.chips import Topology
from phenaki.planning.programs import Workload
from phenaki.types import Text


def parameters(workload: Workload) -> tuple[dict[str, int], dict[str, int]]:
    """(trained, frozen): numbers of parameters by network."""
    state, frozen, _, _ = workload.train_step().inputs
    trained = {workload.name: programs.count(state.params)}
    if "discriminator" in (state.extra or ()):
        trained["discriminator"] = programs.count(state.extra["discriminator"]["params"])
    names = {"text": "text encoder"}
    return trained, {names.get(name, name): programs.count(tree) for name, tree in frozen.items()}


def work(workload: Workload) -> dict[str, float]:
    """FLOPs of a train step by network, without recomputation."""
    # As plain products: a trace sees none inside of the platform's attention kernels.
    stored = workload.stored | {"attention": "xla"}
    program = dataclasses.replace(workload, stored=stored).train_step(remat="none")
    return trace.flops(program.function, *program.inputs)


def forward(workload: Workload, frames: int | None = None) -> float:
    """FLOPs of the trained network's forward pass over one clip (or `frames` frames)."""
    spec, text = workload.spec, workload.text
    frames = spec.frames if frames is None else frames
    if workload.generator is None:
        network = workload.tokenizer
        inputs: tuple = (_zeros(1, frames, spec.height, spec.width, 3),)
    else:
        network = workload.generator
        inputs = (jax.ShapeDtypeStruct((1, spec.tokens(frames)), jnp.int32),)
        if text:
            embeddings = _zeros(1, text.length, text.width)
            inputs += (embeddings, jax.ShapeDtypeStruct((1, text.length), bool))

    def call(method, first, x, *text):
        return method(first, x, Text(*text)) if text else method(first, x)

    init = functools.partial(call, network.init)
    params = jax.eval_shape(init, jax.random.key(0), *inputs)
    return sum(trace.flops(functools.partial(call, network.apply), params, *inputs).values())


def _zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def make(
    workload: Workload,
    topology: Topology,
    *,
    mfu: float,
    sizes: meshes.MeshShape | None = None,
    flops: dict[str, float] | None = None,
    process_grid: Callable[[Topology, meshes.MeshShape], np.ndarray] = meshes.process_grid,
) -> dict[str, Any]:
    """Everything that is known without compiling.

    `sizes` is a mesh instead of the chosen one, `flops` an earlier result of `work`, `process_grid`
    says which host has which device of the mesh. A step takes the longer of its own FLOPs at `mfu`
    of the chips' peak and its traffic at the links' full rate. Hosts that share samples read them
    each: "bytes_per_second" counts all that they read.
    """
    why = "as given"
    if sizes is None:
        sizes, why = meshes.choose(workload, topology)
    trained, frozen = parameters(workload)
    flops = work(workload) if flops is None else flops
    compute = sum(flops.values()) / (mfu * topology.devices * topology.chip.flops)
    exchange = meshes.traffic(workload, sizes) / topology.chip.link
    rate = 1 / max(compute, exchange)
    days, held = workload.steps / rate / 86400, meshes.memory(workload, sizes)
    loads = loads_per_row(process_grid(topology, sizes))
    return {
        "topology": topology.name,
        "chips": topology.chips,
        "hosts": topology.hosts,
        "trained": trained,
        "frozen": frozen,
        "flops": flops,
        "mesh": sizes,
        "why": why,
        "remat": workload.remat,
        "bytes": held,
        "needed": sum(held.values()),
        "memory": topology.chip.memory,
        "mfu": mfu,
        "compute_seconds": compute,
        "exchange_seconds": exchange,
        "steps": workload.steps,
        "steps_per_second": rate,
        "days": days,
        "chip_hours": days * 24 * topology.chips,
        "samples": workload.samples,
        "samples_per_second": rate * sum(workload.samples.values()),
        "hosts_per_row": loads,
        "bytes_per_second": rate * loads * _pixel_bytes(workload),
    }


def _pixel_bytes(workload: Workload) -> int:
    """Bytes of a step's uint8 pixels."""
    spec, frames = workload.spec, {"video": workload.spec.frames, "image": 1}
    images = sum(count * frames[kind] for kind, count in workload.samples.items())
    return images * spec.height * spec.width * 3
