"""Captioned clips of moving digits, in files as a user has them.

    python experiments/make_digits.py --output=data/digits

Writes --count clips of 11 frames at 8 per second, 32 px, and metadata.csv with their captions, such
as "a seven moves left". `read_digits.py` reads them, and samples. Needs scikit-learn.
"""

import csv

import numpy as np
from absl import flags

from experiments import digits
from phenaki import cli
from phenaki.io import media, outputs, paths

OUTPUT = flags.DEFINE_string("output", None, "a new folder for the clips", required=True)
COUNT = flags.DEFINE_integer("count", 3000, "clips", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of digits, directions and places", lower_bound=0)


def main(argv):
    """Writes the clips and their captions, in place of those of an earlier call."""
    del argv
    output, (images, labels) = paths.local_path("output", OUTPUT.value), digits.load()
    images, labels = images[: digits.FOR_CLIPS], labels[: digits.FOR_CLIPS]
    random = np.random.default_rng(SEED.value)
    with outputs.claimed("output", output, "experiment"):
        names = [f"{number:05d}.mp4" for number in range(COUNT.value)]
        replaced = r"\d{5,}\.mp4|metadata\.csv"
        outputs.enlist(output, [*names, "metadata.csv"], "experiment", replaced)
        with open(output / "metadata.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "text"])
            for name in names:
                made = digits.clip(random, images, labels)
                media.write_mp4(output / name, np.repeat(made.video[..., None], 3, -1), digits.FPS)
                rows.writerow([name, made.caption])
    print(f"{output}: {COUNT.value} clips and metadata.csv")


if __name__ == "__main__":
    cli.run(main)
