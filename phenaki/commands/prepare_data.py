"""Prepares a captioned data set for training from videos and images in any layout.

python scripts/prepare_data.py --input=FOLDER --output=DIR [--captions=captions.csv] [--size=128]

FOLDER may hold media with a table of captions (of files, or of segments: start, end), a .txt or
.json next to each file, or class folders; WebVid, Kinetics, Moments in Time, DAVIS; annotation
files of ActivityNet Captions, YouCook2, MSR-VTT and others (docs/data.md); tars, TFRecords or
parquet of img2dataset, video2dataset or DMVR; or be tfds:NAME. The detected layout is printed;
--layout overrides it. Videos are cut into clips without overlap, images become clips of one frame.
Unreadable files are skipped and reported.

DIR then holds the data set (TFDS), report.txt, report.json, dead_letters.jsonl (everything skipped,
with reasons), manifest.json and contact_sheet.png. The same command resumes a stopped run; the same
input gives the same bytes.
"""

import os
import re
from typing import Literal, cast

from absl import flags

from phenaki.data import format
from phenaki.data.prepare import beam, filters, publish, report, run
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.progress import Progress

_INPUT = flags.DEFINE_string(
    "input",
    None,
    "folder, searched recursively; one tar, tfrecord or parquet file; or tfds:NAME",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "directory of the data set", required=True)
_CAPTIONS = flags.DEFINE_string(
    "captions",
    None,
    "table (csv, tsv, jsonl, parquet) of file, caption; by default FOLDER/captions.csv",
)
_LAYOUT = flags.DEFINE_enum(
    "layout", "auto", find.LAYOUTS, f"layout of the input: {', '.join(find.LAYOUTS)}"
)
_FIELDS = flags.DEFINE_string(
    "fields",
    "",
    "columns: file=A,caption=B of a table (quotes=yes or no: whether they enclose its cells), "
    "start=C,end=D,unit=ms of its segments (or duration=D, segment=C; seconds, ms, frames), "
    "media=A,caption=B of parquet, media=A,caption=B,nsfw=C of a TFDS set",
)
_SOURCE_FPS = flags.DEFINE_float(
    "source_fps",
    None,
    "frame rate of image sequences; without it each image is one frame of a clip",
)
_CAPTION_TEMPLATE = flags.DEFINE_string(
    "caption_template",
    format.NO_TEMPLATE,
    'caption of a class, such as "a video of {}"; for layouts whose captions are class names',
)
_FRAMES = flags.DEFINE_integer("frames", 11, "frames of a clip, 1 + 2n")
_FPS = flags.DEFINE_string(
    "fps", "8", "frames per second of the clips; native keeps every frame and the rate of each file"
)
_SIZE = flags.DEFINE_string("size", "128", "pixels: of a square, or HEIGHTxWIDTH")
_VALIDATION = flags.DEFINE_float("validation", 0.1, "fraction of the files for validation")
_SOURCE_SPLITS = flags.DEFINE_bool(
    "source_splits", True, "keep the splits of the source; otherwise --validation divides all"
)
_ENCODING = flags.DEFINE_enum(
    "encoding", "jpeg", ["jpeg", "png"], "encoding of the frames: jpeg or png"
)
_QUALITY = flags.DEFINE_integer("quality", 95, "quality of JPEG frames")
_LIMIT = flags.DEFINE_integer(
    "limit", None, "maximum clips per file or segment; the rest of the file is not read"
)
_DROP_NSFW = flags.DEFINE_list("drop_nsfw", "NSFW", "flags of the source whose items are skipped")
_MIN_WORDS = flags.DEFINE_integer("min_words", 0, "minimum words of a caption")
_MAX_WORDS = flags.DEFINE_integer("max_words", None, "maximum words of a caption")
_MIN_MOTION = flags.DEFINE_float(
    "min_motion", 0.0, "mean change between frames, 0 to 255, below which a clip is skipped"
)
_DROP_DUPLICATES = flags.DEFINE_bool(
    "drop_duplicates", False, "keep one of several identical files"
)
_HOSTS = flags.DEFINE_integer(
    "hosts", 1, "hosts of the training run: at least 8 shards per host and split"
)
# At least two: with one, the decoder runs in this process and a crash would end it.
_WORKERS = flags.DEFINE_integer("workers", max(2, os.cpu_count() or 1), "files decoded in parallel")
_RUNNER = flags.DEFINE_string(
    "runner",
    None,
    "Apache Beam runner: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner",
)
_BEAM = flags.DEFINE_list("beam", "", "pipeline options, such as flink_master=HOST:PORT")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace a data set in DIR")

SHOWN = 20  # skipped files that are printed; the log names all


def _size(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", value.strip().lower())
    if not match:
        raise UserError(f"--size={value}: must be a number of pixels or HEIGHTxWIDTH, such as 128.")
    return int(match[1]), int(match[2] or match[1])


def _fps(value: str) -> float | Literal["native"]:
    if value.strip().lower() == "native":
        return "native"
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--fps={value}: must be a number, such as 8, or native.") from None


def _fields(value: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(name.strip() and column.strip() for name, _, column in pairs):
        raise UserError(f"--fields={value}: must be name=column pairs, such as caption=title.")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _options() -> run.PrepareOptions:
    for flag in (_INPUT, _OUTPUT):
        if not flag.value:  # "--input=" is not caught by required=True
            raise UserError(f"--{flag.name} is required")
    height, width = _size(_SIZE.value)
    return run.PrepareOptions(
        input=_INPUT.value if _INPUT.value.startswith("tfds:") else paths.path(_INPUT.value),
        output=paths.path(_OUTPUT.value),
        captions=_CAPTIONS.value,
        layout=_LAYOUT.value,
        fields=_fields(_FIELDS.value),
        source_fps=_SOURCE_FPS.value,
        frames=_FRAMES.value,
        fps=_fps(_FPS.value),
        height=height,
        width=width,
        caption_template=_CAPTION_TEMPLATE.value,
        validation=_VALIDATION.value,
        source_splits=_SOURCE_SPLITS.value,
        encoding=cast(format.Encoding, _ENCODING.value),  # checked by the flag
        quality=_QUALITY.value,
        limit=_LIMIT.value,
        filters=filters.Filters(
            tuple(_DROP_NSFW.value), _MIN_WORDS.value, _MAX_WORDS.value, _MIN_MOTION.value
        ),
        drop_duplicates=_DROP_DUPLICATES.value,
        hosts=_HOSTS.value,
        workers=_WORKERS.value,
        overwrite=_OVERWRITE.value,
    )


def main(argv: list[str]) -> None:
    """Prepares the data set that the flags describe."""
    del argv
    options = _options()
    runner = None
    if _RUNNER.value:
        if paths.is_remote(options.output) or paths.is_remote(options.input):
            raise UserError(
                f"--runner={_RUNNER.value}: needs an input and an output that every worker sees "
                "under the same path; mount the bucket on the workers, or leave --runner out."
            )
        pipeline = [f"--{option.removeprefix('--')}" for option in _BEAM.value]
        shared = options.output.absolute().parent
        runner = beam.runner(_RUNNER.value, pipeline, options.workers, shared)
    summary = run.prepare(options, lambda total: Progress(total, "files"), runner)
    print(report.text(summary, SHOWN))
    print(f"written: {options.output} (contact sheet: {options.output / publish.SHEET})")
