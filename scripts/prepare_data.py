"""Turns a folder of videos and images into a captioned data set for training.

python scripts/prepare_data.py --input=FOLDER --output=DIR [--captions=captions.csv] [--size=128]

Captions come from a CSV with columns file,caption, from a .txt or .json beside each file, or from
the names of the folders. Videos are cut into clips without overlap, stills become clips of one
frame. A broken, truncated or too short file is skipped and named. DIR then holds the data set
(TFDS), report.txt, report.json and contact_sheet.png.
"""

import os
import re
from pathlib import Path
from typing import cast

from absl import flags

from phenaki import cli
from phenaki.data import builder, prepare, sources
from phenaki.errors import UserError

_INPUT = flags.DEFINE_string(
    "input", None, "folder of videos and images, searched deeply", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "directory of the data set", required=True)
_CAPTIONS = flags.DEFINE_string(
    "captions", None, "CSV of file,caption; FOLDER/captions.csv is found"
)
_LAYOUT = flags.DEFINE_enum(
    "layout", "auto", sources.LAYOUTS, f"where captions are: {', '.join(sources.LAYOUTS)}"
)
_FRAMES = flags.DEFINE_integer("frames", 11, "frames of a clip, 1 + 2n")
_FPS = flags.DEFINE_float("fps", 8.0, "frames per second of the clips")
_SIZE = flags.DEFINE_string("size", "128", "pixels: of a square, or HEIGHTxWIDTH")
_VALIDATION = flags.DEFINE_float("validation", 0.1, "share of the files kept for validation")
_ENCODING = flags.DEFINE_enum("encoding", "jpeg", ["jpeg", "png"], "of the frames: jpeg or png")
_QUALITY = flags.DEFINE_integer("quality", 95, "of JPEG frames")
_LIMIT = flags.DEFINE_integer("limit", None, "most clips of a file; its rest is not looked at")
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "files decoded side by side")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace a data set in DIR")

SHOWN = 20  # skipped files named on the screen; the report names all


def _size(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", value.strip().lower())
    if not match:
        raise UserError(f"--size={value}: must be a number of pixels or HEIGHTxWIDTH, such as 128.")
    return int(match[1]), int(match[2] or match[1])


def _options() -> prepare.Options:
    for flag in (_INPUT, _OUTPUT):
        if not flag.value:  # --input= with nothing after it
            raise UserError(f"--{flag.name} is required")
    height, width = _size(_SIZE.value)
    return prepare.Options(
        input=Path(_INPUT.value),
        output=Path(_OUTPUT.value),
        captions=_CAPTIONS.value,
        layout=_LAYOUT.value,
        frames=_FRAMES.value,
        fps=_FPS.value,
        height=height,
        width=width,
        validation=_VALIDATION.value,
        encoding=cast(builder.Encoding, _ENCODING.value),  # the flag admits nothing else
        quality=_QUALITY.value,
        limit=_LIMIT.value,
        workers=_WORKERS.value,
        overwrite=_OVERWRITE.value,
    )


def main(argv: list[str]) -> None:
    """Prepares the data set that the flags describe."""
    del argv
    options = _options()
    report = prepare.prepare(options, lambda total: cli.Progress(total, "files"))
    print(prepare.text(report, SHOWN))
    print(f"written: {options.output} (contact sheet: {options.output / prepare.SHEET})")


if __name__ == "__main__":
    cli.run(main)
