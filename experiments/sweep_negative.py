"""What a negative prompt takes out of samples, by guidance: moving shapes, read by the detector.

    python experiments/sweep_negative.py --model=checkpoints/laptop --output=out/negative

Samples --count clips without a prompt, each with a negative one that names a colour, a shape and a
direction, and counts in how many clips each of the three is seen all the same, how many show one
clear object, and how many of all are clear and show none of the three. With --limit every λ is
measured with a bounded push, too (docs/sampling.md#guidance). The sampler is MaskGIT's, of 40
steps; at λ 0 a negative prompt does nothing. Writes negative.json, negative.md and negative.png; a
second call resumes.
"""

import dataclasses
import json

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
COUNT = flags.DEFINE_integer("count", 400, "clips per point", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)
GUIDANCE = flags.DEFINE_list("guidance", ["0", "0.5", "1", "3", "6", "12"], "values of lambda")
LIMIT = flags.DEFINE_float(
    "limit", None, "bound of guidance: measures every lambda with it, too", lower_bound=0
)

SHOWN = ("colour", "shape", "direction", "clear", "avoided")
TITLES = {"plain": "λ", "bounded": "λ, bounded"}


def main(argv):
    """Measures every missing point, then writes table and chart."""
    del argv
    from phenaki.data import batches
    from phenaki.evaluation import alignment
    from phenaki.pipeline import Phenaki

    output = paths.local_path("output", OUTPUT.value)
    inputs = [("model", MODEL.value)]
    outputs.admit("output", output, "experiment", inputs)
    points = list(_points())
    model = Phenaki.load(MODEL.value)
    if model.config.data.source != "moving_shapes" or not model.has_text:
        raise UserError(f"--model={MODEL.value}: must be a model of moving shapes with text.")
    world = dataclasses.replace(batches.world(model.config), then=0.0, pair=0.0)
    named = alignment.prompts_of(world, common.combinations(world, "test", COUNT.value))
    with outputs.claimed("output", output, "experiment", inputs):
        report = _resumed(output / "negative.json", model)
        with Progress(len(points), "points") as progress:
            for row, value, options in points:
                done = report["rows"].setdefault(row, {})
                if str(value) not in done:
                    done[str(value)] = _measure(model, world, named, options)
                    report["rows"][row] = dict(sorted(done.items(), key=lambda one: float(one[0])))
                    write_json(output / "negative.json", report, indent=2)
                progress.update(note=f"{TITLES[row]} {value:g}")
        (output / "negative.md").write_text(table := _table(report["rows"]))
        _chart(output / "negative.png", report["rows"])
    print(table, end="")
    print(f"{output}/negative.json, negative.md and negative.png")


def _points():
    """(row, λ, options) of everything to measure."""
    for row in ("plain", "bounded") if LIMIT.value else ("plain",):
        for value in common.numbers(GUIDANCE, float):
            limit = {"guidance_limit": LIMIT.value} if row == "bounded" else {}
            yield row, value, common.MASKGIT_SAMPLER | {"guidance": value} | limit


def _resumed(path, model):
    """The report so far, if it is of the same model, clips and sampler."""
    facts = {"model": model.fingerprint, "count": COUNT.value, "seed": SEED.value}
    facts |= {"sampler": common.MASKGIT_SAMPLER}
    before = json.loads(path.read_text()) if path.is_file() else {}
    rows = before["rows"] if {name: before.get(name) for name in facts} == facts else {}
    if LIMIT.value not in (None, before.get("limit")):
        rows.pop("bounded", None)  # those of another bound do not compare
    limit = LIMIT.value or (before["limit"] if rows else None)
    return facts | {"limit": limit, "rows": rows}


def _measure(model, world, named, options):
    """How many clips show what their negative prompts `named` name, and how many are clear."""
    from phenaki.evaluation import alignment

    nothing = [""] * len(named.texts)
    video = alignment.sample(model, nothing, SEED.value, negative=named.texts, **options)
    seen = alignment.JudgedClips(video, named).shown(world)
    same, clear = seen == named.combination, (seen >= 0).all(1)
    counts = dict(zip(SHOWN, (*same.sum(0), clear.sum()), strict=False))
    counts["avoided"] = (clear & ~same.any(1)).sum()
    return {name: int(count) for name, count in counts.items()}


def _table(rows):
    head = ["", *(f"{name} is seen" for name in SHOWN[:3]), "clear", "clear and without all three"]
    cells = [
        [f"{TITLES[row]} {float(value):g}"] + [common.percent(point[n], COUNT.value) for n in SHOWN]
        for row, points in rows.items()
        for value, point in points.items()
    ]
    return common.table(head, cells)


def _chart(path, rows):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(rows), 3.6), layout="constrained")
    plots = figure.subplots(1, len(rows), squeeze=False, sharey=True)[0]
    for plot, (row, points) in zip(plots, rows.items(), strict=True):
        for name in SHOWN:
            percents = [100 * point[name] / COUNT.value for point in points.values()]
            own = {"clear": "clear", "avoided": "clear, none of the three"}
            label = own.get(name, f"its {name} is seen")
            style = "-" if name in own else "--"
            plot.plot(range(len(points)), percents, style, marker="o", label=label)
        common.percent_axes(plot, [*points], f"{TITLES[row]}, negative prompt")
    figure.supylabel("clips, %", fontsize=10)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    cli.run(main)
