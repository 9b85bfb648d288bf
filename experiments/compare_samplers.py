"""Trial bench of samplers: obedience, diversity, passes and seconds of any settings of a model.

    python experiments/compare_samplers.py --model=checkpoints/laptop --output=out/samplers \\
        --settings=experiments/samplers.yaml --only=middle_5,lambda_12

--settings names settings, each a mapping of sampling options as in a config's `sample`, with those
of later windows under `continued`; an option that is left out has its default, not the model's.
--only picks some of them. Every setting samples --count prompts of moving shapes per split and
seed; the detector counts those that are obeyed in all attributes, with Wilson 95 % intervals over
all seeds; of worlds with pairs also prompts of two objects, where both have to be right. A setting
is better than another only where their intervals are disjoint; pick on one seed, report on others.
Next to it stand the diversity of 8 prompts x 25 samples (`phenaki.evaluation.diversity`), passes
per clip, those over a part of it as that part, and seconds per clip. Settings with `student: true`
sample by --student. Writes samplers.json, samplers.md and samplers.png; a second call resumes, and
measures anew the settings whose options have changed.
"""

import dataclasses
import functools
import json
import time
from typing import Any

import numpy as np
import yaml
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import UserError, one_of
from phenaki.io import outputs, paths
from phenaki.io.artifacts import write_json
from phenaki.progress import Progress

MODEL = flags.DEFINE_string(
    "model", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for results", required=True)
SETTINGS = flags.DEFINE_string("settings", "experiments/samplers.yaml", "YAML of named settings")
ONLY = flags.DEFINE_list("only", [], "names of the settings to measure; default: all")
COUNT = flags.DEFINE_integer("count", 400, "prompts per split and seed", lower_bound=1)
SEEDS = flags.DEFINE_list("seeds", ["0"], "of the samples")
STUDENT = flags.DEFINE_string("student", None, "of the model, for settings with `student: true`")
SPLITS = flags.DEFINE_list("splits", [], "what to measure; default: all that the model has")

NAMES = {"seen": "test", "never_seen": "held_out", "pair": "test", "story": "test"}
SHARES = (*NAMES, *(f"{name} identity" for name in NAMES))
PROMPTS, EACH = 8, 25  # of diversity
MEASURES = ("start_px", "start_bits", "ground_bits")


def main(argv):
    """Measures what is missing, then writes table and chart."""
    del argv
    from phenaki.data import batches
    from phenaki.evaluation import alignment
    from phenaki.pipeline import Phenaki

    for split in SPLITS.value:
        one_of("--splits", split, NAMES)
    seeds = [common.seed(text) for text in SEEDS.value]
    settings = _settings()
    output, inputs = paths.local_path("output", OUTPUT.value), [("model", MODEL.value)]
    inputs += [("student", STUDENT.value)] if STUDENT.value else []
    outputs.admit("output", output, "experiment", inputs)
    model = Phenaki.load(MODEL.value)
    if model.config.data.source != "moving_shapes":
        raise UserError(
            f"--model={MODEL.value}: was trained on {model.config.data.source}; only moving shapes "
            "have a detector."
        )
    alignment.GROUP = min(200, COUNT.value)  # rows of one compiled batch, of all seeds
    if any(options.get("student") for options in settings.values()):
        _student(model)  # before anything is measured
    own = batches.world(model.config)
    splits = SPLITS.value or [name for name in NAMES if name != "pair" or own.pair]
    world = dataclasses.replace(own, then=0.0, pair=0.0)
    with outputs.claimed("output", output, "experiment", inputs):
        _compare(model, world, settings, splits, seeds, output)


@functools.cache
def _student(model):
    if not STUDENT.value:
        raise UserError("--settings: one has `student: true`; give --student.")
    return model.load_student(STUDENT.value)


def _compare(model, world, settings, splits, seeds, output):
    report = _resumed(output / "samplers.json", model, world)
    with Progress(len(settings) * len(seeds), "trials") as progress:
        for name, options in settings.items():
            trials = report["trials"].get(name)
            # A setting of the same name that was edited since is another one.
            if trials is None or trials["options"] != options:
                trials = report["trials"][name] = {"options": options, "seeds": {}}
            for seed in seeds:
                done = trials["seeds"].setdefault(str(seed), {})
                _measure(model, world, options, splits, seed, done)
                write_json(output / "samplers.json", report, indent=2)
                progress.update(note=f"{name}, seed {seed}")
    table = _table(report)
    (output / "samplers.md").write_text(table)
    _chart(output / "samplers.png", report)
    print(table, end="")
    print(f"{output}/samplers.json, samplers.md and samplers.png")


def _settings():
    with paths.path(SETTINGS.value).open() as file:
        known = yaml.safe_load(file)
    names = ONLY.value or list(known)
    return {name: one_of("--only", name, known) for name in names}


def _resumed(path, model, world):
    """The report so far, if it is of the same model, prompts and software; else a new one."""
    from phenaki.data.shapes import render
    from phenaki.evaluation import diversity, settings

    facts = settings.of_alignment(model, world, COUNT.value, 0)
    del facts["sampler"], facts["seed"]
    if STUDENT.value:
        facts["student"] = _student(model).fingerprint
    if path.is_file():
        before = json.loads(path.read_text())
        if before.get("settings") == facts:
            return before
    real = diversity.real_clips(world, EACH, _combinations(world))
    clips = render.render(world, "test", np.arange(2 * COUNT.value))["video"]
    halves = np.split(clips.astype(np.float32) / 255, 2)
    truth = diversity.of_prompts(world, real, PROMPTS)
    truth["frechet"] = diversity.pixel_distance(*halves)
    return {"settings": facts, "truth": truth, "trials": {}}


def _combinations(world):
    """Eight combinations, spread over those that were trained on."""
    seen, _ = world.combinations
    return seen[np.linspace(0, len(seen) - 1, PROMPTS).astype(int)]


def _measure(model, world, options, splits, seed, done):
    """Adds what `done` lacks: counts by split, diversity, passes, seconds per clip."""
    from phenaki.data.shapes import render
    from phenaki.evaluation import alignment, diversity, two_objects
    from phenaki.sampling.options import Defaults

    own = model.settings
    calibrated = model.config.sample.get("calibrated", ())  # the model's, not a setting
    base = dict(choice_temperature=1.0, guidance=0.0, calibrated=calibrated)
    if options.get("student"):
        options = options | {"student": _student(model)}
    model.settings = dataclasses.replace(own, defaults=Defaults(base | options))
    for split in [x for x in splits if "identity" not in done.get(x, {})]:
        if split == "pair":
            pairs = two_objects.prompts(world, NAMES[split], COUNT.value)
            video = alignment.sample(model, pairs.texts, seed)
            done[split] = _counts([two_objects.verdict(world, video, pairs)])
            continue
        combination = common.combinations(world, NAMES[split], COUNT.value)
        if split == "story":
            scenes = alignment.stories(model, world, combination, seed)
            found = [scene.verdict(world) for scene in scenes]
            done[split] = _counts(found) | {"scenes": [int(one.all.sum()) for one in found]}
            continue
        prompts = alignment.prompts_of(world, combination)
        video = alignment.sample(model, prompts.texts, seed)
        done[split] = _counts([alignment.verdict(world, video, prompts)])
        if split == "seen":
            real = render.render(world, "test", np.arange(COUNT.value))["video"]
            done["frechet"] = diversity.pixel_distance(video, real.astype(np.float32) / 255)
    if "passes" not in done:
        texts = alignment.prompts_of(world, np.repeat(_combinations(world), EACH, axis=0)).texts
        model.sample(texts, seed=seed)  # compiles
        start = time.monotonic()
        sample = model.sample(texts, seed=seed)
        done["seconds"] = (time.monotonic() - start) / len(texts)
        done["passes"] = sample.passes
        given = sample.video[:, -model.context :]
        done["later_passes"] = model.sample(texts, seed=seed, video=given).passes
        done |= diversity.of_prompts(world, sample.video, PROMPTS)
    model.settings = own


def _counts(verdicts):
    """How many clips are right, and how many keep colour and shape in every frame."""
    return {
        "right": sum(int(one.all.sum()) for one in verdicts),
        "identity": sum(int(one.identity.sum()) for one in verdicts),
        "of": sum(len(one.all) for one in verdicts),
    }


def _rows(report):
    """(name, by measure its mean over seeds, or (right, of) of a split) of every setting."""
    for name, trial in report["trials"].items():
        seeds = list(trial["seeds"].values())
        row: dict[str, Any] = {}
        for split in NAMES:
            found = [seed[split] for seed in seeds if split in seed]
            if found:
                row[split] = tuple(sum(x[key] for x in found) for key in ("right", "of"))
                row[f"{split} identity"] = sum(x["identity"] for x in found), row[split][1]
        for key in ("passes", "later_passes", "seconds", "frechet", *MEASURES):
            found = [seed[key] for seed in seeds if key in seed]
            if found:
                row[key] = float(np.mean(found))
        yield name, row


def _table(report):
    found = dict(_rows(report))
    columns = [name for name in SHARES if any(name in row for row in found.values())]
    head = ["setting", "passes (later)", *(f"{x}, %" for x in columns), "start px", "start bits"]
    head += ["background bits", "Fréchet", "ms a clip"]
    rows = []
    truth = report["truth"]
    measures = [f"{truth[key]:.2f}" for key in (*MEASURES, "frechet")]
    rows.append(["truth", *[""] * (1 + len(columns)), *measures, ""])
    for name, row in found.items():
        cells = [common.percent(*row[split]) if split in row else "" for split in columns]
        passes = f"{row['passes']:.3g} ({row['later_passes']:.3g})"
        measures = [f"{row[key]:.2f}" if key in row else "" for key in (*MEASURES, "frechet")]
        rows.append([name, passes, *cells, *measures, f"{1000 * row['seconds']:.1f}"])
    return common.table(head, rows)


def _chart(path, report):
    """Obedience over passes, a panel per split; the best at every cost are joined."""
    from matplotlib.figure import Figure

    rows = list(_rows(report))
    names = [name for name in NAMES if any(name in row for _, row in rows)]
    figure = Figure(figsize=(4.5 * len(names), 4), layout="constrained")
    costs = sorted({round(row["passes"]) or 1 for _, row in rows})  # of the axis
    least = min(row["passes"] for _, row in rows)
    plots = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for plot, split in zip(plots, names, strict=True):
        points = [(row["passes"], *row[split], name) for name, row in rows if split in row]
        for passes, right, of, name in points:
            share = right / of
            low, high = common.wilson(right, of)
            plot.errorbar(passes, 100 * share, [[100 * (share - low)], [100 * (high - share)]],
                          fmt="o", color="C0", capsize=2)  # fmt: skip
            plot.annotate(name, (passes, 100 * share), (4, -9), fontsize=6,
                          textcoords="offset points")  # fmt: skip
        front = pareto([(passes, 100 * right / of) for passes, right, of, _ in points])
        plot.plot(*zip(*front, strict=True), "-", color="C1")
        plot.set_xscale("log")
        plot.set_xlim(0.8 * least, 2 * costs[-1])
        plot.set_xticks(costs, [str(cost) for cost in costs])
        plot.minorticks_off()
        plot.set_xlabel("passes of a clip")
        plot.set_title(split.replace("_", " "))
        plot.grid(alpha=0.3)
    figure.supylabel("prompts obeyed, %", fontsize=10)
    figure.savefig(path, dpi=110)


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those (cost, gain) of `points` that no other has the gain of at the cost or less, by cost."""
    best: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or gain > best[-1][1]:
            best.append((cost, gain))
    return best


if __name__ == "__main__":
    cli.run(main)
