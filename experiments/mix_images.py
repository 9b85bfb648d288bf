"""Table 2 in miniature: what images teach a video model, and what they cost, on moving shapes.

    python experiments/mix_images.py --workdir=runs/table2

There are two designs. Design 1: no video shows purple; images do, and their captions name it.
Design 2: videos show purple, but only captions of images name it; captions of other videos leave
their colour out, too, in a fraction --nameless. MaskGIT trains on 100/0, 80/20 and 50/50 clips and
images, at equal steps and at equal numbers of clips, with one tokenizer per seed, which has seen
purple move. Then the detector counts how many videos are purple where the prompt asks for it, and
how well other prompts are obeyed. Writes table2.json, table2.md and table2.png. A second call
resumes.
"""

import dataclasses
import json

import numpy as np
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import one_of
from phenaki.io import outputs, paths
from phenaki.io.artifacts import write_json

PURPLE = "purple"
CLIPS_ONLY = "100/0"

WORKDIR = flags.DEFINE_string("workdir", "runs/table2", "folder for runs and results")
DESIGNS = flags.DEFINE_list("designs", ["1", "2"], "1: purple in images only; 2: named there only")
SEEDS = flags.DEFINE_integer("seeds", 3, "runs per design and mixture", lower_bound=1)
TOKENIZER_STEPS = flags.DEFINE_integer("tokenizer_steps", 3000, "of stage 1", lower_bound=2)
MIXTURES = flags.DEFINE_list("mixtures", [CLIPS_ONLY, "80/20", "50/50"], "clips/images, in percent")
STEPS = flags.DEFINE_integer("steps", 2000, "of stage 2 on clips alone", lower_bound=2)
BUDGETS = flags.DEFINE_list("budgets", ["steps", "clips"], "of which clips alone have as many")
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "adamw", ["adamw", "muon"], "of both stages; muon for the matrices of layers"
)
COUNT = flags.DEFINE_integer("count", 100, "prompts per figure", lower_bound=1)
NAMELESS = flags.DEFINE_float("nameless", 0.6, "of design 2", lower_bound=0, upper_bound=1)

BUDGET_NAMES = {"steps": "equal steps", "clips": "equal clips"}
DESIGN_NAMES = {"1": "no video is purple", "2": "no video is called purple"}
# Figure: title of its column.
FIGURES = {
    "first": "purple: first frame",
    "clip": "purple: clip",
    "still": "purple: image",
    "colour": "others: colour",
    "direction": "others: direction",
    "all": "others: all",
}
SHOWN = 2  # videos per row of the figure


def main(argv):
    """Trains and measures what is missing, then writes the table."""
    del argv
    for design in DESIGNS.value:
        one_of("--designs", design, DESIGN_NAMES)
    for budget in BUDGETS.value:
        one_of("--budgets", budget, BUDGET_NAMES)
    workdir = paths.local_path("workdir", WORKDIR.value)
    with outputs.claimed("workdir", workdir, "experiment"):
        _mix(workdir)


def _mix(workdir):
    rows, samples = [], []
    for design in DESIGNS.value:
        for budget, mixture in _mixtures():
            runs = []
            for seed in range(SEEDS.value):
                name = f"design{design}_{mixture.replace('/', '_')}_{budget}_{seed}"
                print(f"design {design}, {mixture}, {BUDGET_NAMES[budget]}, seed {seed}: {name}")
                _train(design, mixture, budget, seed, workdir, workdir / name)
                scores, shown = _scores(workdir / name, design)
                runs.append(scores)
            row = {"design": design, "mixture": mixture, "budget": budget}
            # Figures that an earlier version has cached may lack some.
            keys = [key for key in runs[-1] if all(key in run for run in runs)]
            rows.append(row | {key: [run[key] for run in runs] for key in keys})
            samples.append((f"{design}: {mixture}, {BUDGET_NAMES[budget]}", shown))
    report = {
        "steps": STEPS.value,
        "tokenizer_steps": TOKENIZER_STEPS.value,
        "optimizer": OPTIMIZER.value,
        "prompts": COUNT.value,
        "by_chance": _by_chance(),
        "rows": rows,
    }
    write_json(workdir / "table2.json", report, indent=2)
    table = _table(rows)
    (workdir / "table2.md").write_text(table)
    _figure(workdir / "table2.png", samples)
    print(table, end="")
    print(f"{workdir}/table2.json, table2.md and table2.png")


def _mixtures():
    """Yields (budget, mixture); clips alone are the same run by either budget."""
    pairs = [(budget, mixture) for budget in BUDGETS.value for mixture in MIXTURES.value]
    yield from dict.fromkeys(
        ("steps", mixture) if mixture == CLIPS_ONLY else (budget, mixture)
        for budget, mixture in pairs
    )


def _by_chance():
    """The fraction of purple, by design, among videos whose captions name no colour."""
    purple = 1 / 7
    return {"1": 0.0, "2": purple / (purple + (1 - purple) * NAMELESS.value)}


def _world(design):
    """Fields of the world that differ from the config's; `design` None is the tokenizer's world."""
    from phenaki.data.shapes.world import World

    colours = (*World.colours, PURPLE)
    if design == "1":
        return dict(still_colours=(PURPLE,))
    if design == "2":
        return dict(colours=colours, unnamed=(PURPLE,), nameless=NAMELESS.value)
    return dict(colours=colours)


def _train(design, mixture, budget, seed, workdir, directory):
    from configs import cvivit, maskgit
    from phenaki.train import maskgit as stage2
    from phenaki.train import tokenizer as stage1

    first = cvivit.get_config("mini")
    first.data.world.update(then=0.0, **_world(None))
    first.codebook.revive_until = int(0.7 * TOKENIZER_STEPS.value)
    tokenizer = workdir / f"tokenizer_{seed}"
    common.train(_with_steps(first, TOKENIZER_STEPS.value, seed), tokenizer, stage1.train)
    config = maskgit.get_config(f"mini,mix={mixture}")
    config.data.world.update(_world(design))
    steps = STEPS.value
    if budget == "clips":
        steps = common.steps_for_clips(config, steps)
    common.train(
        _with_steps(config, steps, seed),
        directory,
        lambda config, path: stage2.train(config, tokenizer, path),
    )


def _with_steps(config, steps, seed):
    config.seed = seed
    config.optim.update(warmup=min(config.optim.warmup, steps // 2), decay=steps)
    config.optim.name = OPTIMIZER.value
    config.train.update(steps=steps, save_every=steps, sample_every=steps)
    return config


def _scores(directory, design):
    """(figures, videos whose prompt asks for purple) of a run, cached in its folder."""
    from phenaki.evaluation import settings

    name = f"figures_{COUNT.value}_{settings.digest(settings.environment())}.json"
    path, clips = directory / name, directory / "purple.npy"
    if not (path.is_file() and clips.is_file()):
        scores, shown = _measure(directory, design)
        np.save(clips, shown)
        write_json(path, scores)
    return json.loads(path.read_text()), np.load(clips)


def _measure(directory, design):
    from phenaki.data import batches
    from phenaki.data.shapes import detector
    from phenaki.data.shapes import world as shapes_world
    from phenaki.evaluation import alignment
    from phenaki.pipeline import Phenaki
    from phenaki.train import logs

    model = Phenaki.load(directory)
    # The same prompts for every seed and mixture.
    world = dataclasses.replace(batches.world(model.config), seed=0)
    purple = shapes_world.palette(world).index(PURPLE)
    others = common.combinations(world, "test", 2 * COUNT.value)
    others = others[others[:, 0] != purple][: COUNT.value]
    prompts = alignment.prompts_of(world, others)
    video = alignment.sample(model, prompts.texts, seed=0)
    plain = alignment.accuracy(alignment.verdict(world, video, prompts))

    wanted = others.copy()
    wanted[:, 0] = purple
    prompts = alignment.prompts_of(world, wanted)
    video = alignment.sample(model, prompts.texts, seed=1)
    judged = alignment.verdict(world, video, prompts)
    first = detector.read(world, video[:, :1])
    texts = [f"a {PURPLE} {world.shapes[shape]}" for shape in wanted[:, 1]]
    image = detector.read(world, alignment.sample(model, texts, seed=2, frames=1))
    right = (image.colour[:, 0] == purple) & (image.shape[:, 0] == wanted[:, 1])
    figures = {
        "first": float((first.colour[:, 0] == purple).mean()),
        "clip": float(judged.colour.mean()),
        "still": float((right & (image.overlap[:, 0] > detector.PRESENT_IOU)).mean()),
        **{name: plain[name] for name in ("colour", "direction", "all")},
        "purple_all": float(judged.all.mean()),
        "ceiling": _ceiling(model, world, wanted),
        "seconds": max(line["seconds"] for line in logs.read(directory)),
        "clips": model.config.data.batch * model.config.train.steps,
        "images": model.config.data.image_batch * model.config.train.steps,
    }
    return figures, video[:SHOWN]


def _ceiling(model, world, wanted):
    """The fraction of purple clips that the tokenizer reconstructs as purple."""
    from phenaki.data.shapes import detector, render
    from phenaki.data.shapes import world as shapes_world

    purple = dataclasses.replace(
        world, colours=(PURPLE,), still_colours=(), unnamed=(), held_out=0, then=0.0
    )
    real = render.render(purple, "test", np.arange(len(wanted)))["video"]
    fake = model.reconstruct(real.astype(np.float32) / 255)
    shown = dataclasses.replace(world, then=0.0)
    index = shapes_world.palette(shown).index(PURPLE)
    purple_frames = (detector.read(shown, fake).colour == index).mean(1)
    return float((purple_frames >= detector.PRESENT_FRACTION).mean())


def _table(rows):
    head = ["design", "clips/images", "budget", *(f"{x}, %" for x in FIGURES.values()), "seconds"]
    lines = []
    for row in rows:
        name = f"{row['design']}: {DESIGN_NAMES[row['design']]}"
        cells = [common.cell(row[key], 1, 100) for key in FIGURES]
        seconds = f"{np.mean(row['seconds']):.0f}"
        lines.append([name, row["mixture"], BUDGET_NAMES[row["budget"]], *cells, seconds])
    return common.table(head, lines)


def _figure(path, samples):
    from phenaki.io import media
    from phenaki.io.contact_sheet import contact_sheet

    videos = [video for _, shown in samples for video in shown]
    labels = [label for label, shown in samples for _ in shown]
    media.write_png(path, contact_sheet(videos, labels))


if __name__ == "__main__":
    cli.run(main)
