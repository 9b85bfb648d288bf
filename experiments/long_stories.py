"""How long stories of moving shapes hold: the fraction of right windows along them, by model.

    python experiments/long_stories.py --models=checkpoints/laptop,runs/new --output=out/stories \\
        --windows=10 --count=200 --seeds=1,2

Tells --count stories per seed of --windows windows, each of which changes one attribute or none,
with each model's own options or those of --preset. The detector counts windows that are right in
all attributes, and those whose every new frame has the right colour and shape (identity), with
Wilson 95 % intervals: of the first window, of all later ones, and of each quarter of them. Windows
of a story depend on each other, so that intervals over few stories are too narrow. Writes
stories.json, stories.md and stories.png.
"""

import dataclasses
from typing import Any

import numpy as np
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import outputs, paths
from phenaki.io.artifacts import write_json
from phenaki.progress import Progress

MODELS = flags.DEFINE_list(
    "models", None, "bundles, or --workdirs of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for results", required=True)
WINDOWS = flags.DEFINE_integer("windows", 10, "of a story", lower_bound=2, upper_bound=10_000)
COUNT = flags.DEFINE_integer("count", 200, "stories per model and seed", lower_bound=1)
SEEDS = flags.DEFINE_list("seeds", ["1"], "of the samples")
PRESET = flags.DEFINE_string("preset", None, "named options of the models' configs")

MEASURES = ("all", "identity")


def main(argv):
    """Tells the stories of every model and seed, then writes table and chart."""
    del argv
    seeds = [common.seed(text) for text in SEEDS.value]
    output = paths.local_path("output", OUTPUT.value)
    inputs = [("models", name) for name in MODELS.value]
    outputs.admit("output", output, "experiment", inputs)
    with outputs.claimed("output", output, "experiment", inputs):
        report = {}
        with Progress(len(MODELS.value) * len(seeds), "trials") as progress:
            for name in MODELS.value:
                found = []
                for seed in seeds:
                    found.append(_tell(name, seed))
                    progress.update(note=f"{name}, seed {seed}")
                report[name] = {m: np.sum([f[m] for f in found], 0).tolist() for m in MEASURES}
        of = COUNT.value * len(seeds)
        facts = {"stories": of, "windows": WINDOWS.value, "seeds": seeds, "preset": PRESET.value}
        facts["right"] = report
        write_json(output / "stories.json", facts, indent=2)
        table = _table(report, of)
        (output / "stories.md").write_text(table)
        _chart(output / "stories.png", report, of)
        print(table, end="")
        print(f"{output}/stories.json, stories.md and stories.png")


def _tell(name, seed):
    """Counts of right stories by measure and window."""
    from phenaki.data import batches
    from phenaki.evaluation import alignment
    from phenaki.pipeline import Phenaki

    model = Phenaki.load(name)
    if model.config.data.source != "moving_shapes":
        raise UserError(
            f"--models: {name} was trained on {model.config.data.source}; only moving shapes have "
            "a detector."
        )
    world = dataclasses.replace(batches.world(model.config), then=0.0, pair=0.0)
    combination = common.combinations(world, "test", COUNT.value)
    call: dict[str, Any] = dict(scenes=WINDOWS.value, preset=PRESET.value)
    scenes = alignment.stories(model, world, combination, seed, **call)
    verdicts = [scene.verdict(world) for scene in scenes]
    return {m: [int(getattr(verdict, m).sum()) for verdict in verdicts] for m in MEASURES}


def _parts(windows):
    """(name, windows) of the parts of a story that the table compares."""
    yield "first", [0]
    yield "later", list(range(1, windows))
    quarters = np.array_split(np.arange(1, windows), 4)
    for quarter in quarters if windows > 4 else ():
        yield f"{quarter[0] + 1}-{quarter[-1] + 1}", quarter.tolist()


def _table(report, of):
    parts = list(_parts(WINDOWS.value))
    head = ["model", "measure", *(f"windows {name}, %" for name, _ in parts)]
    rows = []
    for name, found in report.items():
        for measure in MEASURES:
            cells = [
                common.percent(sum(found[measure][w] for w in windows), of * len(windows))
                for _, windows in parts
            ]
            rows.append([name, measure, *cells])
    return common.table(head, rows)


def _chart(path, report, of):
    """The fraction of right windows over the story, a panel per measure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for plot, measure in zip(figure.subplots(1, 2, sharey=True), MEASURES, strict=True):
        for name, found in report.items():
            fraction = 100 * np.array(found[measure]) / of
            plot.plot(np.arange(1, WINDOWS.value + 1), fraction, "-", label=name)
        plot.set_title({"all": "right in all attributes"}.get(measure, measure))
        plot.set_xlabel("window")
        plot.grid(alpha=0.3)
        plot.legend()
    figure.supylabel("windows, %", fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    cli.run(main)
