"""Fine-tuning as docs/finetuning.md says: twenty clips of a colour that the release never saw.

    python tests/campaigns/new_colour.py --output=colour

Writes twenty captioned clips of purple shapes and a set of old clips, prepares, fine-tunes both
stages from the released model, and has the detector read 100 new and 200 old prompts before and
after. Exits 1 where fewer than 80 % of the new prompts are right, or the old ones lose more than
3 points. A quarter of an hour.
"""

import csv
import dataclasses
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from environment import ROOT

# isort: split
from phenaki.data import batches
from phenaki.data.shapes import attributes, render, tfds, world
from phenaki.evaluation import alignment
from phenaki.io import media
from phenaki.pipeline import Phenaki

OUTPUT = flags.DEFINE_string("output", None, "a new folder", required=True)
COLOUR = flags.DEFINE_string("colour", "purple", "of the new clips")
CLIPS = flags.DEFINE_integer("clips", 20, "of the new colour")
OLD = flags.DEFINE_integer("old", 4000, "clips of the old colours")
FRACTION = flags.DEFINE_float("fraction", 0.4, "of the batches that is new clips")
CVIVIT = flags.DEFINE_integer("cvivit", 800, "steps of stage 1")
MASKGIT = flags.DEFINE_integer("maskgit", 2500, "steps of stage 2")
STAGE1 = ["--config.optim.rate=1e-3", "--config.optim.warmup=50"]
STAGE2 = ["--config.optim.rate=1e-3", "--config.optim.warmup=50", "--config.optim.ema=0.995"]
NEW_BAR, OLD_BAR = 0.8, 0.03
FPS = 8


def write_new(folder: Path, new: world.World) -> None:
    """The new clips as a user has them: files, and a table of their captions."""
    made = render.render(new, "train", np.arange(CLIPS.value))
    folder.mkdir(parents=True)
    with open(folder / "metadata.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text"])
        for number, (video, caption) in enumerate(zip(made["video"], made["caption"], strict=True)):
            media.write_mp4(folder / f"{number:02d}.mp4", video, FPS)
            rows.writerow([f"{number:02d}.mp4", caption])


def score(model: str | Path, old: world.World, new: world.World) -> dict[str, float]:
    """The fraction of prompts of the new colour, and of the old ones, that are right."""
    both = dataclasses.replace(old, colours=(*old.colours, *new.colours))
    phenaki, found = Phenaki.load(model), {}
    for name, source, count in (("new", new, 100), ("old", old, 200)):
        clips = attributes.sample(source, "test", np.arange(count))
        asked = np.stack([clips.colour[:, 0], clips.shape[:, 0], clips.direction[:, 0]], 1)
        asked[:, 0] += len(old.colours) * (name == "new")
        prompts = alignment.prompts_of(both, asked)
        video = alignment.sample(phenaki, prompts.texts, 0)
        read = alignment.accuracy(alignment.verdict(both, video, prompts))
        print(f"{name}: " + ", ".join(f"{k} {100 * v:.1f}" for k, v in read.items()), flush=True)
        found[name] = read["all"]
    return found


def phenaki(*given: object) -> None:
    """Runs a command of the package, and prints its seconds, also those of the processor."""
    command = [sys.executable, "-m", "phenaki.commands.main", *map(str, given)]
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"phenaki {given[0]}: {time.monotonic() - start:.0f} s, {cpu:.0f} of CPU", flush=True)


def main(argv):
    """Makes, prepares, trains and reads."""
    del argv
    folder = Path(OUTPUT.value).absolute()
    known = batches.world(Phenaki.load("laptop").config)
    new = dataclasses.replace(known, colours=(COLOUR.value,), held_out=0, then=0.0, wander=0.0)
    write_new(folder / "clips", new)
    old = tfds.write(folder / "old", known, OLD.value, 1)
    given = [f"--input={folder / 'clips'}", f"--output={folder / 'new'}"]
    phenaki("prepare", *given, f"--size={known.size}", f"--fps={FPS}", "--validation=0")
    sources = f"{old}={1 - FRACTION.value},{folder / 'new'}={FRACTION.value}"
    mixed = ["--start=laptop", "--config.data.source=tfds", f"--config.data.sources={sources}"]
    stage1, stage2 = folder / "cvivit", folder / "maskgit"
    plain = dataclasses.replace(known, then=0.0, wander=0.0)
    before = score("laptop", plain, new)
    own = [f"--workdir={stage1}", f"--config.train.steps={CVIVIT.value}"]
    phenaki("train-cvivit", "--config=cvivit:laptop", *mixed, *STAGE1, *own)
    own = [f"--workdir={stage2}", f"--config.train.steps={MASKGIT.value}"]
    own += [f"--tokenizer={stage1}", "--config.train.sample_count=0"]  # its scores are of before
    phenaki("train-maskgit", "--config=maskgit:laptop", *mixed, *STAGE2, *own)
    after = score(stage2, plain, new)
    good = after["new"] >= NEW_BAR and after["old"] >= before["old"] - OLD_BAR
    print("passed" if good else "failed")
    sys.exit(not good)


if __name__ == "__main__":
    app.run(main)
