"""The demo's report: curves, reconstructions, samples with verdicts, token maps, a story."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from phenaki.data import batches
from phenaki.data.shapes import attributes, render
from phenaki.evaluation import alignment, settings
from phenaki.io import media
from phenaki.io.artifacts import read_dict, write_json
from phenaki.io.html_report import Report
from phenaki.pipeline import Phenaki
from phenaki.sampling.windows import Scene
from phenaki.train import logs

SHOWN = 12  # samples per model
ATTRIBUTES = ("colour", "shape", "direction", "present", "all")
EXPLAINED = """
- **colour**, **shape**, **direction**: the fraction of samples in which it is the prompt's;
  **present**: exactly one object is seen; **all**: all four at once.
- **seen**: combinations of the three that training showed; **held out**: never shown together;
  **story**: windows that continue another one; **ceiling**: real clips through the tokenizer, the
  best that stage 2 can reach with it.
- **start entropy**: how evenly the objects' first places are spread, at most 4 bits; close to 0
  where one sample repeats.
- A **latent frame** is frame 0, or a group of frames that share their tokens.
"""
NEXT = """# Next

- Other prompts of this model:
  `phenaki sample --model={model} --output=out --prompt="a red circle moves left"`
- In the browser: `phenaki studio --model={model}`
- Whether the run is healthy: `phenaki doctor --run={model}`
- Own clips: `phenaki prepare`, `train-cvivit`, `train-maskgit`; docs/own_clips.md says how.
"""


def page(
    models: Mapping[str, Phenaki],
    workdir: Path,
    scenes: Sequence[Scene],
    *,
    count: int,
    seed: int,
    known: Mapping[str, dict],
) -> Report:
    """A page of scores and samples of `models` (name -> model), and curves of `workdir`'s runs.

    `scenes` are the story that every model samples. Scores of `count` prompts are stored in
    `workdir`/scores.json under the model's fingerprint and not computed again; `known` has scores,
    by the model's name, that are not computed at all.
    """
    report = Report("Phenaki on moving shapes")
    report.text(
        "Every number is read from pixels by an exact detector of shape, colour and direction. "
        f"Prompts are of {count} unseen seeds, by the sampler of each model's config. The text "
        "encoder is a T5 with **random frozen weights** over bytes, not a trained language model."
    )
    _scores(report, models, workdir, count, seed, known)
    _curves(report, workdir)
    for name, model in models.items():
        report.text(f"# Samples: {name}")
        _samples(report, model, seed)
        report.figures(
            [(_gif(_story(model, scenes, seed), model), _prompts(scenes), None)],
            column=300,
            heading="A story",
        )
    first = next(iter(models.values()))
    report.text(f"# Tokens: {next(iter(models))}")
    _reconstructions(report, first)
    _token_maps(report, first, seed)
    report.text(NEXT.format(model=workdir / "maskgit"))
    return report


def _scores(report, models, workdir, count, seed, known):
    path = workdir / "scores.json"
    scores = read_dict(path) if path.is_file() else {}
    rows = []
    for name, model in models.items():
        world = batches.world(model.config)
        key = f"{name} {settings.digest(settings.of_alignment(model, world, count, seed))}"
        if name not in known and key not in scores:
            scores[key] = alignment.measure(model, world, count, seed)
        for row, values in (known.get(name) or scores[key]).items():
            rows.append(
                [
                    name,
                    row.replace("_", " "),
                    *(f"{100 * values[k]:.1f} %" for k in ATTRIBUTES),
                    values.get("start_bits"),
                ]
            )
    write_json(path, scores, indent=2)
    report.table(["model", "row", *ATTRIBUTES, "start entropy, bits"], rows)
    report.text(EXPLAINED)
    seconds = read_dict(workdir / "seconds.json")
    report.text("Training took " + ", ".join(f"{k} {v:.0f} s" for k, v in seconds.items()) + ".")


def _curves(report, workdir):
    stage1, stage2 = logs.read(workdir / "cvivit"), logs.read(workdir / "maskgit")

    def series(lines, **names):
        found = {
            label: [(x["step"], x[name]) for x in lines if name in x]
            for label, name in names.items()
        }
        return {
            label: tuple(zip(*points, strict=True)) for label, points in found.items() if points
        }

    report.text("# Training")
    psnr = {"first_frame": "psnr/first", "other_frames": "psnr/rest"}
    for title, lines, names, unit in (
        ("Stage 1: reconstruction", stage1, psnr, "PSNR, dB"),
        ("Stage 1: codes in use", stage1, {"perplexity": "codebook/perplexity"}, "codes"),
        ("Stage 2: cross-entropy of masked tokens", stage2, {"loss": "loss/total"}, "nats"),
        (
            "Stage 2: videos that obey every word",
            stage2,
            {row: f"alignment/{row}/all" for row in ("seen", "held_out", "story")},
            "fraction",
        ),
    ):
        found = series(lines, **names)
        if found:
            report.curve(title, found, "step", unit)


def _samples(report, model, seed):
    world = dataclasses.replace(batches.world(model.config), then=0.0, pair=0.0)
    for heading, split in (
        ("Combinations seen in training", "test"),
        ("Combinations never seen", "held_out"),
    ):
        clips = attributes.sample(world, split, np.arange(10_000, 10_000 + SHOWN))
        prompts = alignment.prompts_of(
            world, np.stack([clips.colour[:, 0], clips.shape[:, 0], clips.direction[:, 0]], -1)
        )
        videos = alignment.sample(model, prompts.texts, seed)
        verdict = alignment.verdict(world, videos, prompts)
        items = [
            (_gif(video, model), text + _wrong(verdict, row), bool(verdict.all[row]))
            for row, (video, text) in enumerate(zip(videos, prompts.texts, strict=True))
        ]
        report.figures(items, heading=heading)


def _wrong(verdict, row):
    """Which attributes of a sample are not those of its prompt."""
    names = [name for name in ATTRIBUTES[:-1] if not getattr(verdict, name)[row]]
    words = ["one object" if name == "present" else name for name in names]
    return f" (not right: {', '.join(words)})" if words else ""


def _story(model, scenes, seed):
    video, _ = model.story(scenes, seed=seed)
    return video


def _prompts(scenes):
    return "; ".join(scene.prompt for scene in scenes)


def _reconstructions(report, model):
    world = batches.world(model.config)
    clips = render.render(world, "test", np.arange(6))
    truth = clips["video"].astype(np.float32) / 255
    pairs = np.concatenate([truth, model.reconstruct(truth)], axis=3)
    items = [
        (_gif(v, model), caption, None) for v, caption in zip(pairs, clips["caption"], strict=True)
    ]
    report.figures(items, heading="Original | through the tokenizer", column=300)


def _token_maps(report, model, seed):
    """One image: rows are latent frames, columns are decoding steps; gray is masked."""
    prompt = "a red circle moves right"
    sample = model.sample([prompt], seed=seed, trace=True)
    assert sample.trace is not None
    # What each step handed to the next, and the result.
    history = np.concatenate([sample.trace.history[:, 0], sample.trace.tokens])
    grid = model.spec.grid()
    colours = matplotlib.colormaps["turbo"](np.linspace(0, 1, model.codebook))[:, :3] * 255
    colours = colours.astype(np.uint8)
    colours = np.concatenate(
        [np.random.default_rng(0).permutation(colours), [[128, 128, 128]]]
    ).astype(np.uint8)
    maps = colours[history].reshape(len(history), *grid, 3)  # [i t m n 3]
    maps = np.pad(maps, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    image = maps.transpose(1, 2, 0, 3, 4).reshape(grid[0] * (grid[1] + 1), -1, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "maps.png")
        media.write_png(path, image, scale=12)
        steps = f"{len(history) - 1} steps to the right"
        caption = f"{prompt}: latent frames downwards, {steps}; gray is [MASK]"
        report.figures(
            [(path.read_bytes(), caption, None)], column=1000, heading="Tokens over decoding steps"
        )
    report.figures([(_gif(sample.video[0], model), prompt, None)])


def _gif(video, model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video.gif")
        media.write_gif(path, video, model.spec.fps, scale=3)
        return path.read_bytes()
