"""Table 2 in miniature: what stills teach videos, and what they cost, on moving shapes.

    python experiments/mix_images.py --workdir=runs/table2

Purple exists in two ways. Design 1: no video shows it, stills do, and name it. Design 2: videos
show it, but only stills name it; every other caption of a video leaves its colour out, too, in
--nameless of the cases. MaskGIT trains on 100/0, 80/20 and 50/50 clips and stills, at equal steps
and again at equal numbers of clips, over one tokenizer per seed, which has seen purple move. Then
the detector reads how many videos are purple when asked to, and how well other prompts are obeyed.
Writes table2.json, table2.md and table2.png. A second call goes on where the first stopped.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.io.artifacts import write_json

PURPLE = "purple"
CLIPS_ONLY = "100/0"

WORKDIR = flags.DEFINE_string("workdir", "runs/table2", "where everything is written")
DESIGNS = flags.DEFINE_list("designs", ["1", "2"], "1: purple in stills only; 2: named there only")
SEEDS = flags.DEFINE_integer("seeds", 3, "runs per design and mixture", lower_bound=1)
TOKENIZER_STEPS = flags.DEFINE_integer("tokenizer_steps", 3000, "of stage 1", lower_bound=2)
MIXTURES = flags.DEFINE_list("mixtures", [CLIPS_ONLY, "80/20", "50/50"], "clips/stills, in percent")
STEPS = flags.DEFINE_integer("steps", 2000, "of stage 2 on clips alone", lower_bound=2)
COUNT = flags.DEFINE_integer("count", 100, "prompts per figure", lower_bound=1)
NAMELESS = flags.DEFINE_float("nameless", 0.6, "of design 2", lower_bound=0, upper_bound=1)

BUDGETS = {"steps": "equal steps", "clips": "equal clips"}
DESIGN_NAMES = {"1": "no video is purple", "2": "no video is called purple"}
# What is asked: {figure: its column}.
FIGURES = {
    "first": "purple: first frame",
    "clip": "purple: clip",
    "still": "purple: still",
    "colour": "others: colour",
    "direction": "others: direction",
    "all": "others: all",
}
SHOWN = 2  # videos per row of the picture


def main(argv):
    """Trains and measures what is missing, then writes the table."""
    del argv
    from phenaki.errors import UserError

    for design in DESIGNS.value:
        if design not in DESIGN_NAMES:
            raise UserError(f"--designs: {design!r} must be one of {', '.join(DESIGN_NAMES)}.")
    workdir = Path(WORKDIR.value)
    rows, pictures = [], []
    for design in DESIGNS.value:
        for budget, mixture in _trainings():
            runs = []
            for seed in range(SEEDS.value):
                name = f"design{design}_{mixture.replace('/', '_')}_{budget}_{seed}"
                print(f"design {design}, {mixture}, {BUDGETS[budget]}, seed {seed}: {name}")
                _train(design, mixture, budget, seed, workdir, workdir / name)
                scores, shown = _measured(workdir / name, design)
                runs.append(scores)
            row = {"design": design, "mixture": mixture, "budget": budget}
            rows.append(row | {key: [run[key] for run in runs] for key in runs[0]})
            pictures.append((f"{design}: {mixture}, {BUDGETS[budget]}", shown))
    report = {
        "steps": STEPS.value,
        "tokenizer_steps": TOKENIZER_STEPS.value,
        "prompts": COUNT.value,
        "by_chance": _by_chance(),
        "rows": rows,
    }
    write_json(workdir / "table2.json", report, indent=2)
    table = _table(rows)
    (workdir / "table2.md").write_text(table)
    _picture(workdir / "table2.png", pictures)
    print(table, end="")
    print(f"{workdir}/table2.json, table2.md and table2.png")


def _trainings():
    """(budget, mixture); clips alone are the same run by either budget."""
    for budget in BUDGETS:
        for mixture in MIXTURES.value:
            if budget == "steps" or mixture != CLIPS_ONLY:
                yield budget, mixture


def _by_chance():
    """Design 2 on clips alone: the share of purple among videos that are called no colour."""
    purple = 1 / 7
    return {"1": 0.0, "2": purple / (purple + (1 - purple) * NAMELESS.value)}


def _world(design):
    """Fields of the world beside those of the config; None is the tokenizer's."""
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
    common.train(_lasting(first, TOKENIZER_STEPS.value, seed), tokenizer, stage1.train)
    config = maskgit.get_config(f"mini,mix={mixture}")
    config.data.world.update(_world(design))
    steps = STEPS.value
    if budget == "clips":
        steps = common.steps_for_clips(config, steps)
    common.train(
        _lasting(config, steps, seed),
        directory,
        lambda config, path: stage2.train(config, tokenizer, path),
    )


def _lasting(config, steps, seed):
    config.seed = seed
    config.optim.update(warmup=min(config.optim.warmup, steps // 2), decay=steps)
    config.train.update(steps=steps, save_every=steps, sample_every=steps)
    return config


def _measured(directory, design):
    """(figures, videos asked to be purple) of a run, kept beside it."""
    path, clips = directory / f"figures_{COUNT.value}.json", directory / "purple.npy"
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
    still = detector.read(world, alignment.sample(model, texts, seed=2, frames=1))
    right = (still.colour[:, 0] == purple) & (still.shape[:, 0] == wanted[:, 1])
    figures = {
        "first": float((first.colour[:, 0] == purple).mean()),
        "clip": float(judged.colour.mean()),
        "still": float((right & (still.overlap[:, 0] > detector.PRESENT_IOU)).mean()),
        **{name: plain[name] for name in ("colour", "direction", "all")},
        "purple_all": float(judged.all.mean()),
        "ceiling": _ceiling(model, world, wanted),
        "seconds": max(line["seconds"] for line in logs.read(directory)),
        "clips": model.config.data.batch * model.config.train.steps,
        "stills": model.config.data.image_batch * model.config.train.steps,
    }
    return figures, video[:SHOWN]


def _ceiling(model, world, wanted):
    """Share of purple clips that are still purple after the tokenizer: it can show them."""
    from phenaki.data.shapes import detector, render
    from phenaki.data.shapes import world as shapes_world

    purple = dataclasses.replace(
        world, colours=(PURPLE,), still_colours=(), unnamed=(), held_out=0, then=0.0
    )
    real = render.render(purple, "test", np.arange(len(wanted)))["video"]
    fake = model.reconstruct(real.astype(np.float32) / 255)
    shown = dataclasses.replace(world, then=0.0)
    index = shapes_world.palette(shown).index(PURPLE)
    share = (detector.read(shown, fake).colour == index).mean(1) >= detector.PRESENT_FRACTION
    return float(share.mean())


def _table(rows):
    head = ["design", "clips/stills", "budget", *(f"{x}, %" for x in FIGURES.values()), "seconds"]
    lines = []
    for row in rows:
        name = f"{row['design']}: {DESIGN_NAMES[row['design']]}"
        cells = [common.cell(row[key], 1, 100) for key in FIGURES]
        seconds = f"{np.mean(row['seconds']):.0f}"
        lines.append([name, row["mixture"], BUDGETS[row["budget"]], *cells, seconds])
    return common.table(head, lines)


def _picture(path, pictures):
    from phenaki.io import media

    videos = [video for _, shown in pictures for video in shown]
    labels = [label for label, shown in pictures for _ in shown]
    media.write_png(path, media.sheet(videos, labels))


if __name__ == "__main__":
    cli.run(main)
