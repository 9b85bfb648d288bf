"""Own clips in strong colours: patterns and boxes, prepared and trained as docs/own_clips.md says.

    python tests/campaigns/colourful_clips.py --output=colourful [--rate=2e-3]

Prints PSNR every 50 steps, with that of one colour per clip, which a collapsed tokenizer reaches.
Exits 1 below 12 dB at the end.
"""

import colorsys
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from environment import ROOT

# isort: split
from phenaki.io import media
from phenaki.train import logs

OUTPUT = flags.DEFINE_string("output", None, "a new folder", required=True)
COUNT = flags.DEFINE_integer("count", 120, "clips")
STEPS = flags.DEFINE_integer("steps", 200, "of stage 1")
RATE = flags.DEFINE_float("rate", None, "the learning rate; default: the preset's")
SIZE, FRAMES, FPS, BAR = 64, 11, 8, 12.0


def clip(random: np.random.Generator, kind: int) -> np.ndarray:
    """uint8 [f h w 3]: bars across or down, or a chequerboard, that move behind moving boxes."""

    def colour():
        hue, *rest = random.random(), random.uniform(0.7, 1), random.uniform(0.6, 1)
        return np.rint(np.array(colorsys.hsv_to_rgb(hue, *rest)) * 255)

    y, x = np.mgrid[:SIZE, :SIZE]
    cell, speed = int(random.integers(8, 25)), random.integers(-2, 3, 2)
    colours, video = np.stack([colour() for _ in range(8)]), np.zeros((FRAMES, SIZE, SIZE, 3))
    for frame in range(FRAMES):
        row, column = (y + speed[0] * frame) // cell, (x + speed[1] * frame) // cell
        video[frame] = colours[(column % 8, row % 8, (row + column) % 2)[kind % 3]]
    for _ in range(random.integers(1, 4)):
        box, size = colour(), random.integers(10, 30, 2)
        place, speed = random.uniform(0, SIZE - 10, 2), random.uniform(-3, 3, 2)
        for frame in range(FRAMES):
            low = np.maximum((place + speed * frame).astype(int), 0)
            high = np.maximum((place + speed * frame).astype(int) + size, 0)
            video[frame, low[0] : high[0], low[1] : high[1]] = box
    return video.astype(np.uint8)


def phenaki(*given: object) -> None:
    """Runs a command of the package."""
    command = [sys.executable, "-m", "phenaki.commands.main", *map(str, given)]
    subprocess.run(command, cwd=ROOT, check=True)


def main(argv):
    """Makes, prepares and trains."""
    del argv
    output = Path(OUTPUT.value).absolute()
    (output / "clips").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(COUNT.value):
        media.write_mp4(output / f"clips/{number:03d}.mp4", clip(random, number), FPS)
    given = [f"--input={output / 'clips'}", f"--output={output / 'set'}"]
    phenaki("prepare", *given, f"--size={SIZE}", f"--fps={FPS}", "--validation=0")
    given = [f"--workdir={output / 'run'}", f"--config.data.sources={output / 'set'}"]
    given += [f"--config.train.steps={STEPS.value}"]
    given += [f"--config.optim.rate={RATE.value}"] * (RATE.value is not None)
    phenaki("train-cvivit", "--config=cvivit:small", *given)
    lines = logs.read(output / "run")
    for line in lines:
        print(f"{line['step']}: {line['psnr/rest']:.1f} dB, flat {line['psnr/flat']:.1f}")
    good = lines[-1]["psnr/rest"] >= BAR
    print("passed" if good else f"failed: {BAR} dB are asked")
    sys.exit(not good)


if __name__ == "__main__":
    app.run(main)
