"""Plans a training run on a pod: parameters, FLOPs, memory, mesh, time and cost.

    python scripts/plan.py --config=configs/baselines.py:vit
    python scripts/plan.py --config=configs/maskgit.py:t2v --stage1=configs/cvivit.py:t2v \\
        --topology=v5e:16x16
    python scripts/plan.py --config=configs/cvivit.py:mit --topology=v5p:4x4x8 --compile --json
    python scripts/plan.py --table

Topologies are v4, v5e, v5p or v6e with their grid of chips (v5e:16x16*2 for two slices), or GPUs
(gpu:64xH100). --compile compiles the real train step, and the sampler of stage 2, with XLA's TPU
compiler (pip install 'phenaki[tpu]'; no TPU is needed) and reports memory, FLOPs and collectives.
--search lists the meshes, remat policies, batch sizes and micro-batches that fit and that nothing
beats in both time and memory. --table prints the paper's presets on pods,
with the compiled figures in --results.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from phenaki.commands import training_flags
from phenaki.errors import UserError
from phenaki.io import artifacts, outputs, paths, streams

CONFIG = config_flags.DEFINE_config_file("config", None, "of either stage")
STAGE1 = config_flags.DEFINE_config_file("stage1", None, "the tokenizer's, for stage 2")
TOPOLOGY = flags.DEFINE_string("topology", "", "v5e:16x16, v4:4x4x8, gpu:8xH100, ...")
MFU = flags.DEFINE_float("mfu", 0.4, "fraction of the peak that the step's FLOPs reach", 0.001, 1.0)
COMPILE = flags.DEFINE_bool("compile", False, "compile for the topology, a TPU's")
SEARCH = flags.DEFINE_bool("search", False, "search meshes, remat policies, batches")
TABLE = flags.DEFINE_bool("table", False, "the paper's presets on pods, as Markdown")
JSON = flags.DEFINE_bool("json", False, "print one JSON object")
RESULTS = flags.DEFINE_string(
    "results", "benchmarks/results/pods.json", "where --compile writes and --table reads figures"
)
CONFIG_FIELDS = training_flags.presets("cvivit", "baselines", "maskgit", "critic")
FLOPS = (("PF", 1e15), ("TF", 1e12), ("GF", 1e9), ("MF", 1e6))  # units and their sizes


def main(argv):
    """Prints the plan."""
    del argv
    from phenaki.planning import chips

    if COMPILE.value:
        _results()  # a wrong file is refused before anything is compiled
    chips.plan_on_cpu()
    if TABLE.value:
        from phenaki.planning import markdown

        streams.result(markdown.markdown(_results(), MFU.value))
        return
    if CONFIG.value is None:
        raise UserError("--config is required")
    # Before the networks are traced, which takes a minute for the largest.
    topology = chips.parse(TOPOLOGY.value) if TOPOLOGY.value else None
    workload = _workload()
    if topology is None:
        if COMPILE.value or SEARCH.value:
            raise UserError("--compile and --search need a --topology, such as v5e:16x16.")
        streams.result("\n".join(_size_lines(workload)))
        return
    from phenaki.planning import compiled, plan, search

    sizes = None
    if SEARCH.value:
        ranked = search.search(workload, topology)
        # Another batch would be another experiment; the table shows what it would cost.
        same = [c for c in ranked if c.workload.samples == workload.samples]
        if not same:
            raise UserError(f"nothing fits: {TOPOLOGY.value} is too small for this config.")
        workload, sizes = same[0].workload, same[0].mesh
        if not JSON.value:
            streams.result(f"{search.table(search.pareto(ranked))}\n")
    elif any(size > 1 for size in workload.mesh.values()):
        sizes = _given(workload, topology)
    made = plan.make(
        workload, topology, mfu=MFU.value, sizes=sizes, process_grid=compiled.process_grid
    )
    if SEARCH.value:
        made["why"] = "the fastest of this batch that fits, by --search"
    if COMPILE.value:
        made["compiled"] = compiled.report(workload, topology, made)
        _save(made)
    if JSON.value:
        streams.result(json.dumps(made, indent=1))
    else:
        streams.result("\n".join(_plan_lines(workload, made)))
        _check_memory(made)


def _check_memory(made):
    if made["needed"] > made["memory"]:
        raise UserError(
            f"--topology={TOPOLOGY.value}: a device needs {_size(made['needed'])} and has "
            f"{_size(made['memory'])}; --search looks for a mesh, remat policy, batch or "
            "config.optim.accumulate that fits."
        )


def _workload():
    from phenaki.io import migrations
    from phenaki.planning import programs
    from phenaki.train.maskgit import with_tokenizer

    config = ConfigDict(migrations.with_kind(CONFIG.value.to_dict()))
    if config.kind == "tokenizer":
        migrations.of_kind("tokenizer", config.to_dict())
    else:
        if STAGE1.value is None:
            raise UserError("--stage1 is required with a config of stage 2.")
        config = with_tokenizer(config, STAGE1.value, "")
    return programs.workload(config)


def _given(workload, topology):
    from phenaki.planning import meshes

    sizes = meshes.resolve(workload, topology)
    if sizes not in list(meshes.legal(workload, topology)):
        nearest, _ = meshes.choose(workload, topology)
        raise UserError(
            f"config.mesh={sizes} does not divide the batch, heads or rows of tokens; nearest "
            f"is {nearest}."
        )
    return sizes


def _name():
    flag: Any = flags.FLAGS["config"]
    return Path(flag.config_filename).stem + ":" + flag.config_filename.partition(":")[2]


def _results():
    """The figures in --results, by preset and topology.

    Raises:
        UserError: there is something else in the file.
    """
    path = paths.local_path("results", RESULTS.value)
    outputs.admit_file("results", path, lambda head: head.lstrip().startswith(b"{"))
    if not path.is_file():
        return {}
    results = artifacts.marked(path)
    known = results is not None and all(
        isinstance(plan, dict) and "topology" in plan for plan in results.values()
    )
    if not known:
        raise UserError(f"--results={path}: has no plans in it; give another path.")
    return results


def _save(made):
    results = _results()
    results[f"{_name()} {made['topology']}"] = made
    path = paths.local_path("results", RESULTS.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(path, dict(sorted(results.items())), indent=1)


def _size_lines(workload):
    from phenaki.planning import plan

    spec = workload.spec
    grid = " x ".join(map(str, spec.grid()))
    yield f"clips          {spec.frames} x {spec.height} x {spec.width} at {spec.fps:g} fps"
    yield f"tokens         {spec.tokens():,} = {grid}, of {workload.codebook:,}"
    trained, frozen = plan.parameters(workload)
    for name, size in trained.items():
        # The parameters, their two moments and their EMA, all float32.
        yield f"{name:14} {size:,} parameters, {_size(16 * size)} of training state"
    for name, size in frozen.items():
        yield f"{name:14} {size:,} parameters, frozen"
    clips, images = (workload.samples.get(kind, 0) for kind in ("video", "image"))
    yield f"a step         {clips} clips and {images} images"
    yield f"training       {workload.steps:,} steps"


def _plan_lines(workload, made):
    yield from _size_lines(workload)
    total = sum(made["flops"].values())
    unit, size = next((x for x in FLOPS if total >= 0.1 * x[1]), FLOPS[-1])
    flops = [f"{k} {v / size:.3g}" for k, v in made["flops"].items() if v > 1e-4 * total]
    yield f"FLOPs per step {total / size:.4g} {unit}: {', '.join(flops)}"
    mesh = ", ".join(f"{axis} {size}" for axis, size in made["mesh"].items())
    yield f"mesh           {mesh}: {made['why']}"
    parts = [f"{kind} {_size(size)}" for kind, size in made["bytes"].items() if size]
    memory = f"{_size(made['needed'])} of {_size(made['memory'])}"
    yield f"a device       {memory}: {', '.join(parts)}"
    yield (
        f"a step         {made['compute_seconds']:.3g} s of products at {made['mfu']:.0%} of the "
        f"peak, {made['exchange_seconds']:.3g} s of traffic over the links"
    )
    if made["needed"] <= made["memory"]:
        yield (
            f"estimate       {_count(made['steps_per_second'], 'step')}/s, {_time(made['days'])} "
            f"on {_count(made['chips'], 'chip')}, {_count(made['chip_hours'], 'chip-hour')}; "
            "not timed on chips"
        )
    else:
        yield "estimate       none: it does not fit"
    loads = made["hosts_per_row"]
    yield (
        f"data           {made['samples_per_second']:,.0f} samples/s, "
        f"{made['bytes_per_second'] / 1e6:,.0f} MB/s of pixels over {made['hosts']} hosts"
        + (f", {loads:.3g} of which load each sample" if loads > 1 else "")
    )
    yield from _compiled_lines(made.get("compiled", {}))


def _time(days):
    """Days in the unit that gives a number to read."""
    for unit, size in (("day", 1), ("hour", 24), ("minute", 24 * 60)):
        if days * size >= 1:
            return _count(days * size, unit)
    return _count(days * 86400, "second")


def _count(number, what):
    """Three digits, no more than the estimate has, without an exponent: "207 days", "1 chip"."""
    if number < 0.001:
        return f"less than 0.001 {what}s"
    shown = f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
    return f"{shown} {what}{'' if shown == '1' else 's'}"


def _compiled_lines(programs):
    for program, found in programs.items():
        ratio = f", {found['ratio']:.3f} of the model's FLOPs" if "ratio" in found else ""
        yield (
            f"{program:14} compiled in {found['seconds']} s: {_size(found['memory'])} per device "
            f"({_size(found['temporary'])} temporary){ratio}"
        )
        for kind, moved in found["collectives"].items():
            yield f"  {kind:20} {moved['number']:5} of together {_size(moved['bytes'])}"
        yield (
            f"  at best {found['compute_seconds']:.3g} s of products and "
            f"{found['exchange_seconds']:.3g} s of traffic"
        )
        yield (
            f"  modelled {found['modelled_seconds']:.3g} s: {found['cycles']:.4g} cycles by the "
            f"compiler's estimate, {found['kernel_cycles']:.3g} of kernels, "
            f"{_size(found['outside_bytes'])} outside of products"
        )


def _size(count):
    return f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"
