"""The Markdown table of the paper's presets on pods: planned, and compiled where measured."""

from typing import Any

from phenaki.planning import plan
from phenaki.planning.chips import Topology, parse
from phenaki.planning.programs import Workload, workload

PODS = ("v4:4x4x8", "v5e:16x16", "v5p:4x4x8", "v6e:16x16")
HEAD = """\
| config | pod | mesh | remat | GiB: plan | GiB: compiled | FLOPs: compiled / model | \
PF per step | s: products | s: traffic | s: compiled traffic | s: modelled | steps/s | days | \
chip-hours |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def presets() -> dict[str, Workload]:
    """The workloads of the paper's presets of both stages by name."""
    from phenaki.configs import cvivit, maskgit
    from phenaki.train.maskgit import with_tokenizer

    names = ("mit", "t2v", "bair", "k600")
    found = {f"cvivit:{name}": workload(cvivit.get_config(name)) for name in names}
    tokenizers = dict(t2v="t2v", nuwa="t2v", bair="bair", k600="k600")
    for name, stage1 in tokenizers.items():
        config = with_tokenizer(maskgit.get_config(name), cvivit.get_config(stage1), "")
        found[f"maskgit:{name}"] = workload(config)
    return found


def markdown(results: dict[str, Any], mfu: float) -> str:
    """One row per preset and pod; `results` are plans with "compiled" by "config topology"."""
    rows = [HEAD]
    for name, run in presets().items():
        flops = None
        for pod in PODS:
            made = results.get(f"{name} {pod}")
            if made is None:
                made = plan.make(run, parse(pod), mfu=mfu, flops=flops)
            flops = made["flops"]
            rows.append(row(name, parse(pod), made))
    return "\n".join(rows)


def row(name: str, topology: Topology, made: dict[str, Any]) -> str:
    """One line of the table."""
    step = made.get("compiled", {}).get("train step", {})
    mesh = " x ".join(str(made["mesh"][axis]) for axis in ("data", "fsdp", "sequence", "tensor"))
    memory = made["memory"] / 2**30
    return (
        f"| `{name}` | {topology.name}, {made['chips']} chips | {mesh} | {made['remat']} | "
        f"{made['needed'] / 2**30:.1f} of {memory:.0f} | "
        + (f"{step['memory'] / 2**30:.1f} | {step['ratio']:.3f}" if step else "- | -")
        + f" | {sum(made['flops'].values()) / 1e15:.3g} | {made['compute_seconds']:.2g} | "
        f"{made['exchange_seconds']:.2g} | "
        + (f"{step['exchange_seconds']:.2g}" if step else "-")
        + (f" | {step['modelled_seconds']:.2g}" if "modelled_seconds" in step else " | -")
        + f" | {made['steps_per_second']:.3g} | "
        f"{made['days']:.2g} | {made['chip_hours']:,.0f} |"
    )
