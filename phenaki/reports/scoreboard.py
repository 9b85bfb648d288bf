"""Scoreboard of a model of moving shapes: exact text alignment, and Tables 1 to 5 in miniature.

Text alignment is the primary figure: a detector reads it from the pixels. Under untrained feature
networks FID, FVD and LPIPS are proxies, which only compare runs of this project with each other.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from phenaki.data import batches
from phenaki.data.shapes import detector
from phenaki.data.shapes.world import World
from phenaki.evaluation import devices, protocol, settings
from phenaki.evaluation.extractors import RANDOM, bytes_of
from phenaki.evaluation.metrics import long_video
from phenaki.evaluation.references import ShapesClips
from phenaki.evaluation.score import Score, floor_cell, sampler_cell, save_scores, value_cell
from phenaki.evaluation.task import task_of
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.io import paths
from phenaki.io.artifacts import read_dict
from phenaki.io.html_report import Report
from phenaki.io.paths import AnyPath, PathLike
from phenaki.reports import figures
from phenaki.reports.text_alignment import add_text_alignment, add_without_text
from phenaki.sampling.windows import Scene

SHOWN = 6  # clips per figure
NETWORKS = ("inception", "i3d", "vgg16", "lpips_vgg")
LONG = 6  # windows of the stories whose drift is measured


class Subject(NamedTuple):
    """The model that a scoreboard is of, the world it was trained on, and the seed of samples."""

    model: Any
    tokenizer: FrozenTokenizer
    world: World
    seed: int


def scoreboard(
    directory: PathLike,
    output: AnyPath,
    preset: Mapping[str, Any],
    weights: str,
    seed: int,
    table3: str | None = None,
) -> Report:
    """Evaluates the model in `directory` by `preset` (configs/tables.py:LAPTOP) and reports it.

    Scores are written to `output`/scoreboard.json, and the features they are computed from to
    `output`. `table3` is a --workdir of experiments/compare_tokenizers.py.
    """
    model = devices.load(directory)
    world = dataclasses.replace(batches.world(model.config), pair=0.0, then=0.0)
    subject = Subject(model, FrozenTokenizer.load(directory), world, seed)
    if any(not paths.is_file(paths.path(weights) / f"{name}.npz") for name in NETWORKS):
        weights = RANDOM
    report = Report("Scoreboard: moving shapes")
    report.text(
        f"Model `{directory}`, fingerprint `{model.fingerprint}`, {model.spec.frames} frames of "
        f"{model.spec.height}x{model.spec.width} at {model.spec.fps:g} a second, seed {seed}."
    )
    count = preset["alignment"]
    results = {"alignment": add_text_alignment(report, model, world, count, seed)}
    results["without_text"] = add_without_text(report, model, world, count, seed)
    results["alignment_settings"] = settings.of_alignment(model, world, count, seed)
    report.text("# Tables 1 to 5 in miniature")
    report.text(_about(weights))
    scores = _tables(report, subject, preset, output, weights)
    if table3:
        _table3(report, paths.local_path("table3", table3))
    results["long"] = _long(report, subject, preset["clips"])
    _settings(report, scores)
    save_scores(
        output / "scoreboard.json", [score for _, score in scores], model=str(directory), **results
    )
    return report


def _tables(report, subject, preset, output, weights) -> list[tuple[int, Score]]:
    """Every row of the preset's tables with a few clips; returns (table, score) pairs."""
    model, scores = subject.model, []
    for row in preset["tables"]:
        clips = ShapesClips(subject.world, row["split"], preset["clips"])
        task = task_of(
            row,
            frames=model.spec.frames,
            per_shard=preset["clips"],
            frame_step=preset["frame_step"],
            resamples=preset["resamples"],
        )
        network = subject.tokenizer if row["task"] == "reconstruction" else model
        found = protocol.evaluate(task, network, clips, output, weights, subject.seed)
        scores += [(row["table"], score) for score in found]
        report.text(f"## Table {row['table']}: {row['title']}")
        if row["task"] in ABOUT:
            report.text(ABOUT[row["task"]])
        report.table(
            ["measure", "value", "noise floor", "n", ""],
            [[s.name, value_cell(s), floor_cell(s), s.n, s.note] for s in found],
        )
        _samples(report, subject, row, clips)
    return scores


ABOUT = dict(
    text_to_image="One model alone; experiments/mix_images.py compares training mixtures.",
    reconstruction="Eleven frames through the tokenizer; both choices of ten frames are scored.",
    prediction="FVD of the whole clip, with the given frames as they are and as the tokenizer "
    "shows them. The noise floor is real against real.",
)


def _about(weights):
    if weights != RANDOM:
        return f"Feature networks of `{weights}`."
    return (
        "**The feature networks here are untrained.** Names end in _proxy: such numbers compare "
        "models of this project with each other and do not compare with the paper's, which are "
        "not printed. `python scripts/convert_weights.py --list` says where the networks "
        "are published. The noise floor is the score of two disjoint halves of the real clips; ± "
        "is half a 95 % interval over resampled clips."
    )


def _samples(report, subject, row, clips):
    """A few clips of a table, sampled again: features are stored, pixels are not.

    All clips of the table are sampled, so that no other batch size is compiled.
    """
    model, seed = subject.model, subject.seed
    real, captions = clips.read(0, clips.total)
    if row["task"] == "reconstruction":
        videos = figures.side_by_side(real, subject.tokenizer.reconstruct(real)[0])
        heading = "Original | through the tokenizer"
    elif row["task"] == "prediction":
        known = np.zeros(real.shape[1:4], bool)
        known[: row["given"]] = True
        fake = model.fill(real, known, [None] * len(real), seed=seed)
        _detected(report, clips.world, real, fake, row["given"])
        videos = figures.side_by_side(real, fake)
        heading = f"Original | predicted from {row['given']} of {real.shape[1]} frames"
    else:
        videos = model.generate(captions, seed=seed, frames=real.shape[1])
        heading = "Samples"
    items = [
        (figures.clip(video, model.spec.fps), caption or "", None)
        for video, caption in itertools.islice(zip(videos, captions, strict=True), SHOWN)
    ]
    report.figures(items, column=220, heading=heading)


def _detected(report, world, real, fake, given):
    """How the detector reads the predicted frames, compared with the true ones."""
    truth, found = (detector.read(world, bytes_of(x)[:, given:]) for x in (real, fake))
    away = np.linalg.norm(truth.centre - found.centre, axis=-1).mean()
    report.text(
        f"In predicted frames of {len(real)} clips the detector sees the true colour in "
        f"{100 * (truth.colour == found.colour).mean():.0f} %, the true shape in "
        f"{100 * (truth.shape == found.shape).mean():.0f} %, and the object {away:.1f} px from its "
        "true position on average."
    )


def _table3(report, workdir):
    """The tokenizers that experiments/compare_tokenizers.py trained alike."""
    path = workdir / "table3.json"
    results = read_dict(path)
    rows = []
    for system, values in results["systems"].items():
        cells = [f"{np.mean(values[k]):.4g} ± {np.std(values[k]):.2g}" for k in TABLE3_MEASURES]
        sizes = [int(values[k][0]) for k in ("parameters", "tokens")]
        # Results of earlier versions have no titles.
        rows.append([values.get("title", system), *sizes, *cells])
    report.text("## Table 3: tokenizers of one size, trained alike")
    header = ["PSNR, dB", results["lpips"], "flicker", "codes used"]
    report.table(["system", "parameters", "tokens", *header], rows)
    report.text(f"`{path}`: {results['steps']} steps, {results['clips']} unseen clips, all seeds.")
    if (workdir / "table3.png").is_file():
        report.figures([((workdir / "table3.png").read_bytes(), "", None)], column=1000)


TABLE3_MEASURES = ("psnr", "lpips", "flicker", "usage")


def _long(report, subject, count) -> dict[str, Any]:
    """Colour drift, seam ratio and unexplained motion of stories of several windows."""
    model = subject.model
    prompts = ["a red circle moves right", *["then a red circle moves left"] * (LONG - 1)]
    seconds = [model.spec.frames / model.spec.fps, *[0.1] * (LONG - 1)]
    story = [Scene(prompt, length) for prompt, length in zip(prompts, seconds, strict=True)]
    windows = list(model.story_windows([story] * count, seed=subject.seed))
    video = bytes_of(np.concatenate(windows, axis=1))
    joints = np.cumsum([window.shape[1] for window in windows])[:-1]
    colours = video.reshape(*video.shape[:2], -1, 3).mean(2)
    drift = long_video.drift(colours, windows[-1].shape[1]).tolist()
    warped, unwarped = long_video.warp_error(video)
    results = dict(
        stories=count,
        frames=video.shape[1],
        scenes=list(zip(prompts, seconds, strict=True)),
        colour_drift=drift,
        seam_ratio=long_video.seam_ratio(video, joints.tolist()),
        unexplained=warped / unwarped,
    )
    report.text("## Long videos")
    report.text(
        f"{count} stories of {LONG} windows, {video.shape[1]} frames. Change across seams over "
        f"change within windows: {results['seam_ratio']:.2f}. Fraction of the change that block "
        f"motion does not explain: {results['unexplained']:.2f}."
    )
    report.curve(
        "Colour drift: squared distance of mean colours, in variances of the first window",
        {"colour drift": (list(range(len(drift))), drift)},
        "window",
        "drift",
    )
    clips = [figures.clip(v, model.spec.fps) for v in video[:SHOWN]]
    items = [(clip, "right, then left and left", None) for clip in clips]
    report.figures(items, heading="Some of the stories")
    return results


# Title of a column: field of `Score`.
SETTINGS = {
    "measure": "name",
    "network": "extractor",
    "checksum": "checksum",
    "resize": "resize",
    "range": "value_range",
    "n": "n",
    "real": "n_real",
    "frames": "frames",
    "fps": "fps",
    "sampler": "sampler",
    "seed": "seed",
}


def _settings(report, scores):
    """The settings that every score depends on."""
    report.text("# What the numbers depend on")
    rows = []
    for number, score in scores:
        cells = {title: getattr(score, field) for title, field in SETTINGS.items()}
        if score.sampler:
            cells["sampler"] = sampler_cell(score.sampler)
        rows.append([number, *cells.values()])
    report.table(["table", *SETTINGS], rows)
