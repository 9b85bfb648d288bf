"""Table 3 in miniature: tokenizers of one size on moving shapes, same data, steps and codebook.

    python experiments/compare_tokenizers.py --workdir=runs/table3

Trains C-ViViT, the per-frame ViT and the per-frame convolutional VQGAN, with several seeds each, by
--optimizer, and compares them on unseen clips. Writes table3.json, table3.md and table3.png. A
second call resumes. LPIPS is a proxy with random weights, unless --weights has vgg16.npz and
lpips_vgg.npz.
"""

import dataclasses

import numpy as np
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import one_of
from phenaki.io import outputs, paths
from phenaki.io.artifacts import write_json

WORKDIR = flags.DEFINE_string("workdir", "runs/table3", "folder for runs and results")
SYSTEMS = flags.DEFINE_list("systems", ["cvivit", "vit", "conv"], "also: laion3d")
SEEDS = flags.DEFINE_integer("seeds", 3, "runs per system", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1000, "of every run", lower_bound=2)
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "adamw", ["adamw", "muon"], "of every run; muon for the matrices of transformers"
)
COUNT = flags.DEFINE_integer("count", 200, "unseen clips", lower_bound=1)
WEIGHTS = flags.DEFINE_string("weights", "weights", "directory of converted feature networks")

NAMES = {
    "cvivit": "C-ViViT",
    "vit": "ViT, per frame",
    "conv": "convolutions, per frame",
    "laion3d": "3-D convolutions",
}
LPIPS = {"lpips": "LPIPS", "lpips_proxy": "LPIPS-proxy"}
SHOWN = 2  # clips of the figure


def main(argv):
    """Trains and measures what is missing, then writes the table."""
    del argv
    for system in SYSTEMS.value:
        one_of("--systems", system, NAMES)
    workdir = paths.local_path("workdir", WORKDIR.value)
    with outputs.claimed("workdir", workdir, "experiment", [("weights", WEIGHTS.value)]):
        _compare(workdir)


def _compare(workdir):
    from phenaki.stories import drift

    rows, samples = {}, {}
    distance, label = drift.distance(WEIGHTS.value)
    label = LPIPS[label]
    for system in SYSTEMS.value:
        runs = []
        for seed in range(SEEDS.value):
            directory = workdir / f"{system}_{seed}"
            print(f"{NAMES[system]}, seed {seed}: {directory}")
            common.train(_config(system, seed), directory, _train)
            scores, samples[system] = _measure(directory, distance)
            runs.append(scores)
        rows[system] = {name: [run[name] for run in runs] for name in runs[0]}
    report = {"steps": STEPS.value, "optimizer": OPTIMIZER.value, "clips": COUNT.value}
    report |= {"lpips": label, "systems": rows}
    write_json(workdir / "table3.json", report, indent=2)
    table = _table(rows, label)
    (workdir / "table3.md").write_text(table)
    _figure(workdir / "table3.png", samples)
    print(table, end="")
    print(f"{workdir}/table3.json, table3.md and table3.png")


def _config(system, seed):
    from configs import baselines, cvivit

    config = (
        cvivit.get_config("mini") if system == "cvivit" else baselines.get_config(f"{system}_mini")
    )
    config.seed = seed
    steps = STEPS.value
    config.optim.update(warmup=min(config.optim.warmup, steps // 2), decay=steps)
    config.optim.name = OPTIMIZER.value
    config.codebook.revive_until = int(0.7 * steps)
    config.train.update(steps=steps, save_every=steps, sample_every=steps)
    return config


def _train(config, directory):
    from phenaki.train import tokenizer

    tokenizer.train(config, directory)


def _measure(directory, distance):
    """(scores of a run on unseen clips, (the first few clips, their reconstructions))."""
    import jax

    from phenaki.data import batches
    from phenaki.data.shapes import render
    from phenaki.evaluation.metrics import reconstruction
    from phenaki.io import checkpoint
    from phenaki.models import factory
    from phenaki.train import logs

    params, config, _ = checkpoint.load_run(directory)
    model, spec = factory.tokenizer(config), factory.video_spec(config)
    # The same unseen clips for every seed and system.
    world = dataclasses.replace(batches.world(config), seed=0)
    real = render.render(world, "test", np.arange(COUNT.value))["video"]
    real = real.astype(np.float32) / 255
    network = jax.jit(lambda video: model.apply({"params": params}, video).video)
    chunks = np.array_split(real, max(1, len(real) // 50))
    fake = np.concatenate([np.clip(network(chunk), 0, 1) for chunk in chunks])
    lines = logs.read(directory)
    scores = {
        "psnr": reconstruction.psnr(real, fake),
        "first": reconstruction.psnr(real[:, :1], fake[:, :1]),
        "lpips": float(np.mean([distance(*pair).mean() for pair in zip(real, fake, strict=True)])),
        "flicker": reconstruction.flicker(real, fake),
        "usage": lines[-1]["codebook/usage"],
        "tokens": spec.tokens(),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "seconds": max(line["seconds"] for line in lines),
    }
    return scores, (real[:SHOWN], fake[:SHOWN])


def _table(rows, label):
    names = {"psnr": "PSNR, dB", "first": "first frame, dB", "lpips": label, "flicker": "flicker"}
    names["usage"] = "codes used"
    digits = {"psnr": 2, "first": 2, "lpips": 4, "flicker": 3, "usage": 2}
    head = ["", "parameters", "tokens", *names.values(), "seconds"]
    lines = []
    for system, row in rows.items():
        cells = [NAMES[system], f"{row['parameters'][0]:,}", str(row["tokens"][0])]
        cells += [common.cell(row[name], digits[name]) for name in names]
        lines.append([*cells, f"{np.mean(row['seconds']):.0f}"])
    return common.table(head, lines)


def _figure(path, samples):
    from phenaki.io import media
    from phenaki.io.contact_sheet import contact_sheet

    real = next(iter(samples.values()))[0]
    videos, labels = list(real), ["original"] * len(real)
    for system, (_, fake) in samples.items():
        videos += list(fake)
        labels += [NAMES[system]] * len(fake)
    # One clip after the other, each with every system below it.
    order = sorted(range(len(videos)), key=lambda i: i % len(real))
    media.write_png(path, contact_sheet([videos[i] for i in order], [labels[i] for i in order]))


if __name__ == "__main__":
    cli.run(main)
