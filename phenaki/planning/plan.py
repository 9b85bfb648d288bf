"""The plan of a run: sizes, work, memory, mesh, time and data, as one JSON-able dictionary."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from phenaki.models import factory
from phenaki.planning import meshes, programs, trace
from phenaki.planning.chips import Topology
from phenaki.types import Text


def parameters(config: ConfigDict) -> tuple[dict[str, int], dict[str, int]]:
    """(trained, frozen): numbers of parameters by network. Stage 2's config has the tokenizer's."""
    state, frozen, _, _ = programs.train_step(config).inputs
    if config.kind == "maskgit":
        names = {"tokenizer": "tokenizer", "text": "text encoder"}
        frozen = {names[name]: programs.count(tree) for name, tree in frozen.items()}
        return {"MaskGIT": programs.count(state.params)}, frozen
    trained = {config.tokenizer.name: programs.count(state.params)}
    if "discriminator" in state.extra:
        trained["discriminator"] = programs.count(state.extra["discriminator"]["params"])
    return trained, {name: programs.count(tree) for name, tree in frozen.items()}


def work(config: ConfigDict) -> dict[str, float]:
    """FLOPs of a train step by network, nothing recomputed."""
    program = programs.train_step(ConfigDict({**config.to_dict(), "remat": "none"}))
    return trace.flops(program.function, *program.inputs)


def forward(config: ConfigDict, frames: int | None = None) -> float:
    """FLOPs of the trained network's forward pass over one clip (or `frames` frames)."""
    spec = factory.video_spec(config)
    frames = spec.frames if frames is None else frames
    if config.kind == "tokenizer":
        network: Any = factory.tokenizer(config)
        inputs: tuple = (_zeros(1, frames, spec.height, spec.width, 3),)
    else:
        network = factory.maskgit(config)
        inputs = (jax.ShapeDtypeStruct((1, spec.tokens(frames)), jnp.int32),)
        if config.text:
            length, width = config.text.length, config.text.width
            inputs += (_zeros(1, length, width), jax.ShapeDtypeStruct((1, length), bool))

    def call(method, first, x, *text):
        return method(first, x, Text(*text)) if text else method(first, x)

    init = functools.partial(call, network.init)
    params = jax.eval_shape(init, jax.random.key(0), *inputs)
    return sum(trace.flops(functools.partial(call, network.apply), params, *inputs).values())


def _zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def make(
    config: ConfigDict,
    topology: Topology,
    *,
    mfu: float,
    sizes: meshes.Sizes | None = None,
    flops: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Everything that is known without compiling.

    `sizes` is a mesh instead of the chosen one, `flops` what `work` gave before. A step takes the
    longer of its own FLOPs at `mfu` of the chips' peak and of its traffic at all that the links
    carry.
    """
    spec = factory.video_spec(config)
    why = "as given"
    if sizes is None:
        sizes, why = meshes.choose(config, topology)
    trained, frozen = parameters(config)
    flops = work(config) if flops is None else flops
    compute = sum(flops.values()) / (mfu * topology.chips * topology.chip.flops)
    exchange = meshes.traffic(config, sizes) / topology.chip.link
    rate = 1 / max(compute, exchange)
    days = config.train.steps / rate / 86400
    rows = programs.kinds(config)
    pixels = 3 * spec.height * spec.width
    size = sum(n * pixels * (spec.frames if kind == "video" else 1) for kind, n in rows.items())
    held = meshes.memory(config, sizes)
    return {
        "topology": topology.name,
        "chips": topology.chips,
        "hosts": topology.hosts,
        "trained": trained,
        "frozen": frozen,
        "flops": flops,
        "mesh": sizes,
        "why": why,
        "remat": config.remat,
        "bytes": held,
        "needed": sum(held.values()),
        "memory": topology.chip.memory,
        "mfu": mfu,
        "compute_seconds": compute,
        "exchange_seconds": exchange,
        "steps": config.train.steps,
        "steps_per_second": rate,
        "days": days,
        "chip_hours": days * 24 * topology.chips,
        "samples": rows,
        "samples_per_second": rate * sum(rows.values()),
        "bytes_per_second": rate * size,
    }
