"""Reads the digits of a model's samples, of real clips and of their reconstructions.

    python experiments/read_digits.py --clips=data/digits --tokenizer=runs/digits/cvivit
    python experiments/read_digits.py --clips=data/digits --model=runs/digits/maskgit

The reader is scikit-learn's support vector machine on single frames; it has learned digits of other
writers than those of `make_digits.py`. Prints, in percent with Wilson 95 % intervals: "asked",
the digit that most frames show is that of the caption; "same", one digit is read in at least 90 %
of the frames; "direction", the ink moves the way that the caption says. Samples have the captions
of the real clips. --tokenizer reads reconstructions alone. Needs scikit-learn.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float

from experiments import common, digits
from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import paths

MODEL = flags.DEFINE_string("model", None, "a bundle, or the --workdir of train_maskgit.py")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "the run or bundle of a tokenizer")
CLIPS = flags.DEFINE_string("clips", None, "the folder of make_digits.py", required=True)
COUNT = flags.DEFINE_integer("count", 200, "clips of each kind", lower_bound=1)
SAMPLE_SEED = flags.DEFINE_integer("sample_seed", 0, "of the samples", lower_bound=0)


def main(argv):
    """Reads and prints."""
    del argv
    videos, captions = _real(paths.local_path("clips", CLIPS.value))
    rows = {"real clips": videos}
    if MODEL.value:
        from phenaki.pipeline import Phenaki

        model = Phenaki.load(MODEL.value)
        rows["reconstructions"] = model.reconstruct(videos)
        rows["samples"] = np.asarray(model.generate(captions, seed=SAMPLE_SEED.value))
    elif TOKENIZER.value:
        from phenaki.models.frozen import Tokenizer

        rows["reconstructions"] = Tokenizer.load(TOKENIZER.value).reconstruct(videos)
    reader, lines = digits.Reader(), []
    for name, shown in rows.items():
        counts = digits.scores([reader.read(video) for video in shown], captions)
        lines.append([name, *(common.percent(count, len(shown)) for count in counts.values())])
    print(common.table(["", *counts], lines), end="")


def _real(folder: Path) -> tuple[Float[np.ndarray, "b f h w 3"], list[str]]:
    """The first clips of `folder`, in 0 to 1, and their captions."""
    from phenaki.data.prepare import video

    listed = folder / "metadata.csv"
    if not listed.is_file():
        raise UserError(
            f"--clips={folder}: has no metadata.csv; experiments/make_digits.py makes such clips."
        )
    with open(listed, newline="") as file:
        rows = list(csv.DictReader(file))[: COUNT.value]
    size = digits.SIZE
    kind: dict[str, Any] = dict(frames=digits.FRAMES, fps=digits.FPS)
    files = [folder / row["file_name"] for row in rows]
    videos = [next(video.clips(file, height=size, width=size, **kind)).video for file in files]
    return np.stack(videos).astype(np.float32) / 255, [row["text"] for row in rows]


if __name__ == "__main__":
    cli.run(main)
