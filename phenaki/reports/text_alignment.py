"""The text alignment section of the scoreboard: what an exact detector reads from the pixels."""

from typing import Any

import numpy as np

from phenaki.data.shapes import render
from phenaki.data.shapes.world import World
from phenaki.evaluation import alignment
from phenaki.evaluation.metrics import bootstrap
from phenaki.io.html_report import Report
from phenaki.reports import figures

SHOWN = 6  # samples per row
NAMES = dict(
    ceiling="ceiling",
    seen="combinations seen in training",
    held_out="combinations never seen",
    stills_only="colours that only images show",
)


def add_text_alignment(
    report: Report, model: Any, world: World, count: int, seed: int
) -> dict[str, dict[str, float]]:
    """Adds the table, confusion matrices and samples of `count` prompts a row to `report`.

    Returns the fractions, 0..1, of prompts obeyed by row and attribute.
    """
    report.text("# Exact text alignment: the primary figure")
    report.text(
        "Fractions of prompts that the videos obey, read from the pixels by an exact detector; ± "
        "is half a 95 % interval. Colour, shape and presence are right in 80 % of the frames, "
        "identity is colour and shape in all. The ceiling is ground truth through the tokenizer. "
        "Scenes are those of stories, each judged on its own frames."
    )
    rows = alignment.judged_clips(model, world, count, seed)
    truth = render.render(world, "test", np.arange(count))
    real = truth["video"].astype(np.float32) / 255
    ceiling = alignment.JudgedClips(model.reconstruct(real), rows["seen"].prompts)
    rows = {"ceiling": ceiling, **rows}
    lines, fractions = [], {}
    for name, row in rows.items():
        verdict = row.verdict(world)
        fractions[name] = alignment.accuracy(verdict)
        low, high = bootstrap.mean_interval(verdict.all, seed=seed)
        cells = {k: f"{100 * fraction:.1f} %" for k, fraction in fractions[name].items()}
        cells["all"] += f" ± {50 * (high - low):.1f}"
        lines.append([NAMES.get(name, name.replace("_", " ")), len(verdict.all), *cells.values()])
    report.table(["prompts", "n", *alignment.ATTRIBUTES], lines)
    if not world.still_colours:
        report.text("No row for colours that only images show: this model's world has none.")
    _figures(report, world, model.spec.fps, rows)
    return fractions


def add_without_text(
    report: Report, model: Any, world: World, count: int, seed: int
) -> dict[str, dict[str, float]]:
    """Adds how clear `count` samples without text are, compared with clips of the test split.

    Returns the fractions, 0..1, by row and attribute.
    """
    samples = alignment.sample(model, [None] * count, seed)
    truth = render.render(world, "test", np.arange(count))["video"].astype(np.float32) / 255
    rows = {"samples without text": samples, "unseen clips": truth}
    fractions = {name: alignment.clarity(world, video) for name, video in rows.items()}
    report.text("## Without text")
    report.text(
        "Fractions of clips that show one object of one colour and one shape, which moves in one "
        "direction, whichever they are. Few samples of training have no text."
    )
    lines = [
        [name, count, *(f"{100 * fraction:.1f} %" for fraction in found.values())]
        for name, found in fractions.items()
    ]
    report.table(["clips", "n", *alignment.ATTRIBUTES], lines)
    items = [(figures.clip(video, model.spec.fps), "(no text)", None) for video in samples[:SHOWN]]
    report.figures(items, heading="Samples without text")
    return fractions


def _figures(report, world, fps, rows):
    """Confusion matrices of every row, the scenes together; then samples, mistakes first."""
    single = {name: row for name, row in rows.items() if not name.startswith("scene")}
    groups = {name: [row] for name, row in single.items()}
    groups["scenes of stories"] = [row for name, row in rows.items() if name not in single]
    for name, group in groups.items():
        matrices = alignment.confusion(world, group)
        report.figures(
            [(figures.confusion(matrices), 'Counts; "-": nothing clear is seen', None)],
            column=1000,
            heading=f"Confusions: {NAMES.get(name, name)}",
        )
    for name, row in single.items():
        if name == "ceiling":
            continue
        right = row.verdict(world).all
        # Mistakes first: the table says how rare they are.
        order = np.argsort(right, kind="stable")[:SHOWN]
        items = [
            (figures.clip(row.video[i], fps), row.prompts.texts[i], bool(right[i])) for i in order
        ]
        report.figures(items, heading=f"Samples, mistakes first: {NAMES.get(name, name)}")
