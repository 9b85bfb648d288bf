"""Table 3 in miniature: tokenizers of one size on moving shapes, same data, steps and codebook.

    python experiments/compare_tokenizers.py --workdir=runs/table3

Trains C-ViViT, the per-frame ViT and the per-frame convolutional VQGAN, with several seeds each, by
--optimizer, and compares them on unseen clips. --systems names other rows of --settings, each a
config and the fields that differ in it. Writes table3.json, table3.md and table3.png. A second call
resumes. LPIPS is a proxy with random weights, unless --weights has vgg16.npz and lpips_vgg.npz.
"""

import dataclasses

import numpy as np
import yaml
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import one_of
from phenaki.io import outputs, paths
from phenaki.io.artifacts import write_json

WORKDIR = flags.DEFINE_string("workdir", "runs/table3", "folder for runs and results")
SYSTEMS = flags.DEFINE_list("systems", ["cvivit", "vit", "conv"], "rows of the table")
SETTINGS = flags.DEFINE_string("settings", "experiments/tokenizers.yaml", "YAML of named rows")
SEEDS = flags.DEFINE_integer("seeds", 3, "runs per system", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 1000, "of a run whose row has none", lower_bound=2)
OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "adamw", ["adamw", "muon"], "of every run; muon for the matrices of transformers"
)
COUNT = flags.DEFINE_integer("count", 200, "unseen clips", lower_bound=1)
WEIGHTS = flags.DEFINE_string("weights", "weights", "directory of converted feature networks")

LPIPS = {"lpips": "LPIPS", "lpips_proxy": "LPIPS-proxy"}
SHOWN = 2  # clips of the figure


def main(argv):
    """Trains and measures what is missing, then writes the table."""
    del argv
    with paths.path(SETTINGS.value).open() as file:
        known = yaml.safe_load(file)
    for system in SYSTEMS.value:
        one_of("--systems", system, known)
    workdir = paths.local_path("workdir", WORKDIR.value)
    with outputs.claimed("workdir", workdir, "experiment", [("weights", WEIGHTS.value)]):
        _compare(known, workdir)


def _compare(known, workdir):
    from phenaki.stories import drift

    rows, samples = {}, {}
    distance, label = drift.distance(WEIGHTS.value)
    label = LPIPS[label]
    for system in SYSTEMS.value:
        runs, title = [], known[system]["title"]
        for seed in range(SEEDS.value):
            directory = _run(known, system, seed, workdir)
            scores, shown = _measure(directory, distance)
            samples[title] = shown
            runs.append(scores)
        rows[system] = {"title": title, **{name: [run[name] for run in runs] for name in runs[0]}}
    report = {"steps": STEPS.value, "optimizer": OPTIMIZER.value, "clips": COUNT.value}
    report |= {"lpips": label, "systems": rows}
    write_json(workdir / "table3.json", report, indent=2)
    table = _table(rows.values(), label)
    (workdir / "table3.md").write_text(table)
    _figure(workdir / "table3.png", samples)
    print(table, end="")
    print(f"{workdir}/table3.json, table3.md and table3.png")


def _run(known, system, seed, workdir):
    """The folder of that row's run, trained if it is not; before it the run that it starts from."""
    row = dict(known[system])
    title, start = row.pop("title"), row.pop("start", None)
    config = _config(row.pop("config"), row, seed)
    if start is not None:
        one_of(f"{system}: start", start, known)
        config.start = str(_run(known, start, seed, workdir))
    directory = workdir / f"{system}_{seed}"
    print(f"{title}, seed {seed}: {directory}")
    common.train(config, directory, _train)
    return directory


def _config(file_and_variant, changes, seed):
    from configs import baselines, cvivit

    file, variant = file_and_variant.split(":")
    config = {"cvivit": cvivit, "baselines": baselines}[file].get_config(variant)
    config.train.steps = STEPS.value
    for section, fields in changes.items():
        config[section].update(fields)
    config.seed = seed
    steps = config.train.steps
    config.optim.update(warmup=min(config.optim.warmup, steps // 2), decay=steps)
    config.optim.name = OPTIMIZER.value
    config.codebook.revive_until = int(0.7 * steps)
    config.train.update(save_every=steps, sample_every=steps)
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
    for row in rows:
        cells = [row["title"], f"{row['parameters'][0]:,}", str(row["tokens"][0])]
        cells += [common.cell(row[name], digits[name]) for name in names]
        lines.append([*cells, f"{np.mean(row['seconds']):.0f}"])
    return common.table(head, lines)


def _figure(path, samples):
    from phenaki.io import media
    from phenaki.io.contact_sheet import contact_sheet

    real = next(iter(samples.values()))[0]
    videos, labels = list(real), ["original"] * len(real)
    for title, (_, fake) in samples.items():
        videos += list(fake)
        labels += [title] * len(fake)
    # One clip after the other, each with every system below it.
    order = sorted(range(len(videos)), key=lambda i: i % len(real))
    media.write_png(path, contact_sheet([videos[i] for i in order], [labels[i] for i in order]))


if __name__ == "__main__":
    cli.run(main)
