"""Alignment of a model's samples with their prompts, by guidance, steps and choice temperature.

    python experiments/sweep_guidance.py --model=checkpoints/laptop --output=out/guidance

Varies one of them at a time, with those of MaskGIT's sampler for the others, and counts how many
of --count prompts of moving shapes the samples obey, by the detector. With --critic it also varies
the steps of decoding by a token critic instead of confidence, and with --limit guidance whose push
is bounded (`guidance_limit`, docs/sampling.md#guidance). Writes guidance.json, guidance.md and
guidance.png; a second call resumes.

    python experiments/sweep_guidance.py --model=runs/maskgit --output=out/guidance \\
        --prompt="cars driving on a road" --prompt="a beach"

With --prompt it measures nothing, which needs moving shapes, but shows: every prompt with every λ
and one seed, else with the model's own options, as grid.mp4 (a row per prompt, a column per λ) and
grid.png (a row of frames per sample).
"""

import dataclasses
import json
import shlex
import sys
import time

import numpy as np
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import outputs, paths
from phenaki.io.artifacts import write_json
from phenaki.progress import Progress

MODEL = flags.DEFINE_string(
    "model", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for results", required=True)
CRITIC = flags.DEFINE_string("critic", None, "the --workdir of train_critic.py for this model")
COUNT = flags.DEFINE_integer("count", 100, "prompts per point and split", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)
GUIDANCE = flags.DEFINE_list("guidance", ["0", "0.5", "1", "3", "6", "12"], "values of lambda")
STEPS = flags.DEFINE_list("steps", ["4", "8", "12", "24", "48"], "numbers of decoding steps")
LIMIT = flags.DEFINE_float(
    "limit", None, "bound of guidance: measures every lambda with it, too", lower_bound=0
)
PROMPT = flags.DEFINE_multi_string("prompt", [], "to look at, with every lambda; several times")
TEMPERATURE = flags.DEFINE_list("temperature", ["0", "1", "2", "4", "8"], "choice temperatures")

SPLITS = {"test": "seen", "held_out": "never seen"}
TITLES = {
    "guidance": "λ",
    "steps": "steps",
    "choice_temperature": "choice temperature",
    "critic": "steps, with the critic",
    "bounded": "λ, bounded",
}
SECOND = {"steps": "critic", "guidance": "bounded"}  # axis -> the dashed lines of its chart
SHARES = ("colour", "shape", "direction", "all")


def main(argv):
    """Measures every missing point, then writes table and chart; or the grid of --prompt."""
    del argv
    from phenaki.data import batches
    from phenaki.pipeline import Phenaki

    output = paths.local_path("output", OUTPUT.value)
    inputs = [("model", MODEL.value), ("critic", CRITIC.value)]
    outputs.admit("output", output, "experiment", inputs)
    model = Phenaki.load(MODEL.value)
    if PROMPT.value:
        with outputs.claimed("output", output, "experiment", inputs):
            _grid(model, output)
        return
    if model.config.data.source != "moving_shapes":
        raise UserError(
            f"--model={MODEL.value}: was trained on {model.config.data.source}; only moving shapes "
            "have a detector; give --prompt for samples to look at."
        )
    critic = model.load_critic(CRITIC.value) if CRITIC.value else None
    world = dataclasses.replace(batches.world(model.config), then=0.0, pair=0.0)
    with outputs.claimed("output", output, "experiment", inputs):
        _sweep(model, world, critic, output)


def _sweep(model, world, critic, output):
    report = _resumed(output / "guidance.json", model, world, critic)
    points = _points(critic)
    with Progress(len(points), "points") as progress:
        for axis, value, options in points:
            done = report["axes"].setdefault(axis, {})
            if str(value) not in done:
                done[str(value)] = _measure(model, world, options)
                write_json(output / "guidance.json", report, indent=2)
            progress.update(note=f"{axis} {value}")
    table = _table(report)
    (output / "guidance.md").write_text(table)
    _chart(output / "guidance.png", report)
    print(table, end="")
    print(f"{output}/guidance.json, guidance.md and guidance.png")


def _points(critic):
    """(axis, value, options) of everything to measure."""
    base, points = common.MASKGIT_SAMPLER, []
    for axis, flag, kind in (
        ("guidance", GUIDANCE, float),
        ("steps", STEPS, int),
        ("choice_temperature", TEMPERATURE, float),
    ):
        for value in common.numbers(flag, kind):
            points.append((axis, value, base | {axis: value}))
            if critic is not None and axis == "steps":
                points.append(("critic", value, base | dict(steps=value, critic=critic)))
            if LIMIT.value and axis == "guidance":
                bounded = base | dict(guidance=value, guidance_limit=LIMIT.value)
                points.append(("bounded", value, bounded))
    return sorted(points, key=lambda point: list(TITLES).index(point[0]))


def _grid(model, output):
    """Samples every prompt with every λ, and writes them next to each other."""
    from phenaki.io import media
    from phenaki.io.clean_text import clean
    from phenaki.io.contact_sheet import contact_sheet

    prompts = [clean(prompt) for prompt in PROMPT.value]
    scales = list(common.numbers(GUIDANCE, float))
    options = {"critic": model.load_critic(CRITIC.value)} if CRITIC.value else {}
    columns = [
        model.generate(prompts, seed=SEED.value, guidance=scale, **options) for scale in scales
    ]
    grid = np.concatenate([np.concatenate(list(videos), 1) for videos in columns], 2)
    facts = {
        "prompts": prompts,
        "guidance": scales,
        "seed": SEED.value,
        "model": model.fingerprint,
        "command": shlex.join(sys.argv),
    }
    outputs.enlist(output, ["grid.mp4", "grid.png"], kind="experiment")
    scale = media.scale_to_see(model.spec.height, model.spec.width, side=128)
    media.write_mp4(output / "grid.mp4", grid, model.spec.fps, scale, facts)
    rows = [(row, column) for row in range(len(prompts)) for column in range(len(scales))]
    sheet = contact_sheet(
        [columns[column][row] for row, column in rows],
        [f"λ {scales[column]:g}: {prompts[row]}" for row, column in rows],
    )
    media.write_png(output / "grid.png", sheet, facts=facts)
    shown = ", ".join(f"{scale:g}" for scale in scales)
    print(f"{output}/grid.mp4 and grid.png: a row per prompt, columns λ {shown}")


def _resumed(path, model, world, critic):
    """The report so far, if it is of the same model, prompts and samples."""
    from phenaki.evaluation import settings

    base = common.MASKGIT_SAMPLER
    own = {name: base[name] for name in ("guidance", "steps", "choice_temperature")}
    facts = {"model": model.fingerprint, "count": COUNT.value, "seed": SEED.value, "own": own}
    facts["settings"] = settings.of_alignment(model, world, COUNT.value, SEED.value, **base)
    facts |= {"critic": CRITIC.value, "limit": LIMIT.value}
    options = base | dict(critic=critic)
    facts["critic_settings"] = settings.of_sampler(model.defaults, options)["critic"]
    if path.is_file():
        before = json.loads(path.read_text())
        if before.get("settings") == facts["settings"]:
            axes = before["axes"]
            # Those of another critic, or of another bound, do not compare.
            if before["critic_settings"] != facts["critic_settings"]:
                axes = {name: axis for name, axis in axes.items() if name != "critic"}
            if before.get("limit") != facts["limit"]:
                axes = {name: axis for name, axis in axes.items() if name != "bounded"}
            return facts | {"axes": axes}
    return facts | {"axes": {}}


def _measure(model, world, options):
    from phenaki.evaluation import alignment

    start, result = time.monotonic(), {}
    for split, name in SPLITS.items():
        prompts = alignment.prompts_of(world, common.combinations(world, split, COUNT.value))
        video = alignment.sample(model, prompts.texts, seed=SEED.value, **options)
        result[name] = alignment.accuracy(alignment.verdict(world, video, prompts))
    return result | {"seconds": round(time.monotonic() - start, 2)}


def _table(report):
    head = ["", *(f"{name}: {share}" for name in SPLITS.values() for share in SHARES), "seconds"]
    rows = []
    for axis, points in report["axes"].items():
        for value, point in points.items():
            cells = [
                f"{100 * point[name][share]:.0f} %" for name in SPLITS.values() for share in SHARES
            ]
            rows.append([f"{TITLES[axis]} {value}", *cells, f"{point['seconds']:.0f}"])
    return common.table(head, rows)


def _chart(path, report):
    from matplotlib.figure import Figure

    axes = {name: x for name, x in report["axes"].items() if name not in SECOND.values()}
    figure = Figure(figsize=(4 * len(axes), 3.6), layout="constrained")
    plots = figure.subplots(1, len(axes), squeeze=False)[0]
    for plot, (axis, points) in zip(plots, axes.items(), strict=True):
        lines = {name: (axis, name) for name in SPLITS.values()}
        other = SECOND.get(axis)
        if other in report["axes"]:
            lines |= {f"{name}, {other}": (other, name) for name in SPLITS.values()}
        for label, (source, name) in lines.items():
            known = report["axes"][source]
            places = [list(points).index(value) for value in known]
            shares = [100 * point[name]["all"] for point in known.values()]
            style = "--" if source == other else "-"
            plot.plot(places, shares, style, marker="o", label=label)
        common.percent_axes(plot, [*points], f"{TITLES[axis]} (else {report['own'][axis]:g})")
    figure.supylabel("prompts obeyed, %", fontsize=10)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    cli.run(main)
