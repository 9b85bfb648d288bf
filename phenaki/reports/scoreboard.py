"""One page on a small model of moving shapes: exact text alignment, and Tables 1 to 5 in miniature.

Text alignment is the figure to go by: a detector reads it from the pixels. Under untrained feature
networks FID, FVD and LPIPS are proxies, which only compare runs of this project with each other.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phenaki.data import batches
from phenaki.data.shapes import detector, render
from phenaki.evaluation import alignment, devices, protocol
from phenaki.evaluation import score as record
from phenaki.evaluation.extractors import RANDOM, bytes_of
from phenaki.evaluation.metrics import bootstrap, long_video
from phenaki.evaluation.references import MovingShapes
from phenaki.evaluation.score import Score
from phenaki.evaluation.task import task_of
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.io.html_report import Report
from phenaki.reports import figures
from phenaki.sampling.windows import Scene

SHOWN = 6  # clips per picture
NETWORKS = ("inception", "i3d", "vgg16", "lpips_vgg")
LONG = 6  # windows of the stories whose drift is measured


def scoreboard(
    directory: str | Path,
    output: Path,
    preset: Mapping[str, Any],
    weights: str,
    seed: int,
    table3: str | None = None,
) -> Report:
    """Measures the model in `directory` by `preset` (configs/tables.py:LAPTOP) and lays it out.

    Scores are written to `output`/scoreboard.json; what they were computed from stays in `output`.
    """
    model, tokenizer = devices.load(directory), FrozenTokenizer.load(directory)
    world = dataclasses.replace(batches.world(model.config), pair=0.0, then=0.0)
    if any(not Path(weights, f"{name}.npz").is_file() for name in NETWORKS):
        weights = RANDOM
    report = Report("Scoreboard: moving shapes")
    report.text(
        f"Model `{directory}`, fingerprint `{model.fingerprint}`, {model.spec.frames} frames of "
        f"{model.spec.height}x{model.spec.width} at {model.spec.fps:g} a second, seed {seed}."
    )
    scores = {"alignment": _alignment(report, model, world, preset["alignment"], seed)}
    report.text("# Tables 1 to 5 in miniature")
    report.text(_about(weights))
    found: list[tuple[int, Score]] = []
    for row in preset["tables"]:
        clips = MovingShapes(world, row["split"], preset["clips"])
        used = tokenizer if row["task"] == "reconstruction" else model
        plan = task_of(
            row,
            frames=model.spec.frames,
            per_shard=preset["clips"],
            frame_step=preset["frame_step"],
            resamples=preset["resamples"],
        )
        records = protocol.evaluate(plan, used, clips, output, weights, seed)
        found += [(row["table"], score) for score in records]
        report.text(f"## Table {row['table']}: {row['title']}")
        if row["task"] in ABOUT:
            report.text(ABOUT[row["task"]])
        report.table(
            ["measure", "value", "noise floor", "n", ""],
            [[s.name, record.ours(s), record.floor(s), s.n, s.note] for s in records],
        )
        _show(report, row, model, tokenizer, clips, seed)
    if table3:
        _table3(report, Path(table3))
    scores["long"] = _long(report, model, preset["clips"], seed)
    _settings(report, found)
    records = [score for _, score in found]
    record.save(output / "scoreboard.json", records, model=str(directory), **scores)
    return report


ABOUT = dict(
    text_to_image="Training with other shares of stills is another script's matter; this is the "
    "one model at hand.",
    reconstruction="Eleven frames through the tokenizer, and both choices of ten to score.",
    prediction="FVD of the whole clip, with the given frames as they are and as the tokenizer "
    "shows them. The noise floor is real against real.",
)


def _about(weights):
    if weights != RANDOM:
        return f"Feature networks of `{weights}`."
    return (
        "**The feature networks here are untrained.** Names end in _proxy: such numbers compare "
        "models of this project with each other, mean nothing beside the paper's, and are not "
        "printed beside them. `python scripts/convert_weights.py --list` says where the networks "
        "are published. The noise floor is the score of two disjoint halves of the real clips; ± "
        "is half a 95 % interval over resampled clips."
    )


def _alignment(report, model, world, count, seed) -> dict[str, Any]:
    """The primary table, its confusions and samples; returns the shares."""
    report.text("# Exact text alignment: the primary figure")
    report.text(
        "Shares of prompts that the videos obey, read from the pixels by an exact detector; ± is "
        "half a 95 % interval. The ceiling is ground truth through the tokenizer. Scenes are those "
        "of stories, each judged on its own frames."
    )
    rows = alignment.judged_clips(model, world, count, seed)
    truth = render.render(world, "test", np.arange(count))
    real = truth["video"].astype(np.float32) / 255
    ceiling = alignment.JudgedClips(model.reconstruct(real), rows["seen"].prompts)
    rows = {"ceiling": ceiling, **rows}
    lines, scores = [], {}
    for name, row in rows.items():
        verdict = row.verdict(world)
        scores[name] = alignment.accuracy(verdict)
        low, high = bootstrap.mean_interval(verdict.all, seed=seed)
        cells = [f"{100 * share:.1f} %" for share in scores[name].values()]
        cells[-1] = f"{cells[-1]} ± {50 * (high - low):.1f}"
        lines.append([NAMES.get(name, name.replace("_", " ")), len(verdict.all), *cells])
    report.table(["prompts", "n", *alignment.ATTRIBUTES], lines)
    if not world.still_colours:
        report.text("No row for stills only: this model's world has no colours of theirs alone.")
    groups = {name: [row] for name, row in rows.items() if not name.startswith("scene")}
    groups["scenes of stories"] = [row for name, row in rows.items() if name.startswith("scene")]
    for name, group in groups.items():
        found = alignment.confusion(world, group)
        report.figures(
            [(figures.confusion(found), 'Counts; "-": nothing clear is seen', None)],
            column=1000,
            heading=f"Confusions: {NAMES.get(name, name)}",
        )
    for name in [name for name in groups if name in rows and name != "ceiling"]:
        row = rows[name]
        right = row.verdict(world).all
        # Mistakes first: the table says how rare they are.
        some = np.argsort(right, kind="stable")[:SHOWN]
        items = [
            (figures.clip(row.video[i], model.spec.fps), row.prompts.texts[i], bool(right[i]))
            for i in some
        ]
        report.figures(items, heading=f"Samples, mistakes first: {NAMES.get(name, name)}")
    return scores


NAMES = dict(
    ceiling="ceiling",
    seen="combinations seen in training",
    held_out="combinations never seen",
    stills_only="colours that only stills show",
)


def _show(report, row, model, tokenizer, clips, seed):
    """A few clips of a table, made again: features are kept, pixels are not.

    All of them at once, as before: that compiles nothing.
    """
    real, captions = clips.read(0, clips.total)
    fps = model.spec.fps
    if row["task"] == "reconstruction":
        items = figures.beside(real, tokenizer.reconstruct(real)[0]), captions
        heading = "Original | through the tokenizer"
    elif row["task"] == "prediction":
        known = np.zeros(real.shape[1:4], bool)
        known[: row["given"]] = True
        fake = model.fill(real, known, [None] * len(real), seed=seed)
        _exact(report, clips.world, real, fake, row["given"])
        items = figures.beside(real, fake), captions
        heading = f"Original | predicted from {row['given']} of {real.shape[1]} frames"
    else:
        items = model.generate(captions, seed=seed, frames=real.shape[1]), captions
        heading = "Samples"
    report.figures(
        [
            (figures.clip(video, fps), caption or "", None)
            for video, caption in itertools.islice(zip(*items, strict=True), SHOWN)
        ],
        column=220,
        heading=heading,
    )


def _exact(report, world, real, fake, given):
    """What the detector says of the predicted frames beside the true ones."""
    truth, found = (detector.read(world, bytes_of(x)[:, given:]) for x in (real, fake))
    away = np.linalg.norm(truth.centre - found.centre, axis=-1).mean()
    report.text(
        f"In predicted frames of {len(real)} clips the detector sees the true colour in "
        f"{100 * (truth.colour == found.colour).mean():.0f} %, the true shape in "
        f"{100 * (truth.shape == found.shape).mean():.0f} %, and the object {away:.1f} px from its "
        "true place on average."
    )


def _table3(report, workdir):
    """The trained-alike tokenizers of experiments/compare_tokenizers.py."""
    path = workdir / "table3.json"
    kept = json.loads(path.read_text())
    rows = []
    for system, values in kept["systems"].items():
        cells = [f"{np.mean(values[k]):.4g} ± {np.std(values[k]):.2g}" for k in SHOWN_OF_TABLE3]
        rows.append([system, int(values["parameters"][0]), int(values["tokens"][0]), *cells])
    report.text("## Table 3: tokenizers of one size, trained alike")
    header = ["PSNR, dB", kept["lpips"], "flicker", "codes used"]
    report.table(["system", "parameters", "tokens", *header], rows)
    report.text(f"`{path}`: {kept['steps']} steps, {kept['clips']} unseen clips, all seeds.")
    if (workdir / "table3.png").is_file():
        report.figures([((workdir / "table3.png").read_bytes(), "", None)], column=1000)


SHOWN_OF_TABLE3 = ("psnr", "lpips", "flicker", "usage")


def _long(report, model, count, seed) -> dict[str, Any]:
    """Drift, seams and motion over stories of several windows."""
    prompts = ["a red circle moves right", *["then a red circle moves left"] * (LONG - 1)]
    seconds = [model.spec.frames / model.spec.fps, *[0.1] * (LONG - 1)]
    story = [Scene(prompt, length) for prompt, length in zip(prompts, seconds, strict=True)]
    windows = list(model.story_windows([story] * count, seed=seed))
    video = bytes_of(np.concatenate(windows, axis=1))
    joints = np.cumsum([window.shape[1] for window in windows])[:-1]
    colours = video.reshape(*video.shape[:2], -1, 3).mean(2)
    drift = long_video.drift(colours, windows[-1].shape[1])
    warped, still = long_video.warp_error(video)
    scores = dict(
        frames=video.shape[1],
        drift=drift.tolist(),
        seam=long_video.seam(video, joints.tolist()),
        unexplained=warped / still,
    )
    report.text("## Long videos")
    report.text(
        f"{count} stories of {LONG} windows, {video.shape[1]} frames. Change at the seams "
        f"between windows over change elsewhere: {scores['seam']:.2f}. Share of the change that "
        f"motion of blocks does not explain: {scores['unexplained']:.2f}."
    )
    report.curve(
        "Drift of mean colours, of their variance in the first window",
        {"drift": (list(range(len(drift))), drift.tolist())},
        "window",
        "drift",
    )
    some = video[:SHOWN]
    items = [(figures.clip(v, model.spec.fps), "right, then left and left", None) for v in some]
    report.figures(items, heading="Some of the stories")
    return scores


def _settings(report, found):
    """What every number depends on."""
    report.text("# What the numbers depend on")
    rows = []
    for number, score in found:
        sampler = score.sampler and ", ".join(f"{k} {v:g}" for k, v in score.sampler.items())
        rows.append(
            [
                number,
                score.name,
                score.extractor,
                score.checksum,
                score.resize,
                score.value_range,
                score.n,
                score.n_real,
                score.frames,
                score.fps,
                sampler,
                score.seed,
            ]
        )
    header = ["table", "measure", "network", "checksum", "resize", "range", "n", "real", "frames"]
    report.table([*header, "fps", "sampler", "seed"], rows)
