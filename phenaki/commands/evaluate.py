"""Evaluates a model by the protocol of a row of Tables 1 to 5, next to the paper's numbers.

    python scripts/evaluate.py --table=3 --row=cvivit --model=runs/cvivit_mit --data=data/mit
    python scripts/evaluate.py --table=all --preset=laptop --output=runs/scoreboard

The first needs a data set of scripts/prepare_data.py and, in --weights, the feature networks of
scripts/convert_weights.py; with --weights=random they are untrained, and the scores' names end in
_proxy. Features are stored in --output, shard by shard: a killed evaluation resumes, and the
processes of a job share the shards, in a folder that all of them see. The second
evaluates the released model on moving shapes in minutes, every table in miniature, and writes
scoreboard.html.
"""

import time
from typing import Any

from absl import flags

from phenaki import cli
from phenaki.commands import training_flags
from phenaki.errors import UserError, one_of
from phenaki.io import outputs

flags.declare_key_flag(cli.NO_VERIFY.name)
TABLE = flags.DEFINE_enum("table", None, ["1", "2", "3", "4", "5", "all"], "table", required=True)
ROW = flags.DEFINE_string("row", None, "of the table; the only one by default")
MODEL = flags.DEFINE_string(
    "model",
    None,
    "a bundle or the --workdir of a training run; default with --table=all: checkpoints/laptop",
)
DATA = flags.DEFINE_string("data", None, "prepared data set; default: that of configs/tables.py")
SPLIT = flags.DEFINE_string("split", "validation", "of the data set")
OUTPUT = flags.DEFINE_string("output", "runs/evaluation", "folder for features and scores")
WEIGHTS = flags.DEFINE_string("weights", "weights", "directory of feature networks, or random")
LIMIT = flags.DEFINE_integer(
    "limit", None, "at most so many clips of the data set, chosen at random", lower_bound=2
)
BATCH = flags.DEFINE_integer("batch", 64, "clips sampled and stored together", lower_bound=1)
REPEATS = flags.DEFINE_integer(
    "repeats", 1, "samplings with seeds from --seed on; scores are their mean ± deviation",
    lower_bound=1,
)  # fmt: skip
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0, upper_bound=2**32 - 1)
PRESET = flags.DEFINE_enum("preset", None, ["laptop"], "with --table=all: which measures")
TABLE3 = flags.DEFINE_string(
    "table3", None, "--workdir of experiments/compare_tokenizers.py, for the scoreboard"
)

training_flags.define_processes()


def main(argv):
    """Evaluates one row, or writes the scoreboard."""
    del argv
    if (TABLE.value == "all") != (PRESET.value is not None):
        raise UserError("--table=all goes with --preset=laptop, and the other tables without it.")
    if TABLE.value == "all":
        _scoreboard()
    else:
        _row(int(TABLE.value))


def _scoreboard():
    model = MODEL.value or "checkpoints/laptop"
    inputs = [("model", model), ("weights", WEIGHTS.value), ("table3", TABLE3.value)]
    with outputs.claimed("output", OUTPUT.value, "evaluation", inputs, shared=True) as claim:
        _write_scoreboard(model, claim.directory)


def _write_scoreboard(model, output):
    from phenaki.configs import tables
    from phenaki.reports import scoreboard

    start = time.monotonic()
    page = scoreboard.scoreboard(
        model,
        output,
        tables.LAPTOP,
        WEIGHTS.value,
        SEED.value,
        TABLE3.value,
    )
    page.text(f"Made in {time.monotonic() - start:.0f} s.")
    size = page.save(output / "scoreboard.html")
    print(f"{output}/scoreboard.html: {size / 1e6:.1f} MB, {time.monotonic() - start:.0f} s")


def _row(number):
    import jax

    from phenaki.configs import tables

    training_flags.join()
    table = tables.TABLES[number]
    row_name, row = _find(table, number)
    model_path, directory = _inputs(row)

    from phenaki.data.prepare import manifest
    from phenaki.evaluation import devices
    from phenaki.evaluation.references import ClipWindows, Prepared
    from phenaki.evaluation.score import save_scores
    from phenaki.evaluation.task import task_of, with_template
    from phenaki.evaluation.tokenizer import FrozenTokenizer

    tokenizer = row["task"] == "reconstruction"
    model = FrozenTokenizer.load(model_path) if tokenizer else devices.load(model_path)
    spec = model.spec
    task = task_of(row, frames=spec.frames, per_shard=BATCH.value)
    windows = row.get("windows", 1)
    clips: Any = Prepared(
        directory,
        SPLIT.value,
        "image" if row["task"] == "text_to_image" else "video",
        task.frames + windows - 1,
        (spec.height, spec.width),
        spec.fps,
    )
    task = with_template(task, clips.caption_template)
    full = row.get("clips", clips.total)
    used = clips.total = min(clips.total, full, LIMIT.value or full)
    if windows > 1:
        clips = ClipWindows(clips, task.frames, windows)
    with outputs.claimed("output", OUTPUT.value, "evaluation", shared=True) as claim:
        output = claim.directory
        scores = _scores(task, model, clips, output)
    if jax.process_index():
        return
    camera = manifest.camera(directory)
    differs = _differs(row, camera)
    if used < full:
        for metric in row["printed"]:
            differs.setdefault(metric, f"{used} clips instead of {full}")
    print(f"Table {number}, {row_name}: {table['title']}")
    _print(scores, row, table["others"], camera, differs)
    path = output / f"table{number}-{row_name}.json"
    facts = dict(
        model=model_path, data=directory, split=SPLIT.value, limit=LIMIT.value, camera=camera,
        repeats=REPEATS.value,
    )  # fmt: skip
    save_scores(path, scores, table=number, row=row_name, **facts)
    print(path)


def _scores(task, model, clips, output):
    """The scores of every sampling, or their means."""
    from phenaki.evaluation import protocol
    from phenaki.evaluation.score import repeated

    seeds = range(SEED.value, SEED.value + REPEATS.value)
    return repeated(
        [protocol.evaluate(task, model, clips, output, WEIGHTS.value, seed) for seed in seeds]
    )


def _print(scores, row, others, camera, differs):
    """The scores of a row of a table next to its printed numbers and those of other models."""
    from phenaki.evaluation.score import compare, text_table

    if "camera" in row:
        print(f"camera: {camera or 'unknown'}; that of the published numbers: {row['camera']}")
    print(text_table(compare(scores, row["printed"], differs, row.get("deviations", {}))))
    if any(score.proxy for score in scores):
        return
    for name, values in others.items():
        print(f"  the paper's {name}: " + ", ".join(f"{k} {v:g}" for k, v in values.items()))


def _differs(row, camera):
    """Why a measure does not compare with the printed one, by measure, with data of `camera`."""
    if row.get("camera") in (None, camera):
        return dict(row["differs"])
    reason = f"camera {camera or 'unknown'} instead of {row['camera']}"
    others = {name: f"; {why}" for name, why in row["differs"].items()}
    return {name: reason + others.get(name, "") for name in row["printed"]}


def _inputs(row):
    """(model, data set), apart from --output."""
    if row["task"] == "reconstruction" and REPEATS.value > 1:
        raise UserError(f"--repeats={REPEATS.value}: a reconstruction is no sample; nearest is 1.")
    if not MODEL.value:
        raise UserError(
            f"--model is required: a checkpoint that {row['config']} trained for this row."
        )
    directory = DATA.value or row["data"]
    inputs = [("model", MODEL.value), ("data", directory), ("weights", WEIGHTS.value)]
    outputs.admit("output", OUTPUT.value, "evaluation", inputs)
    return MODEL.value, directory


def _find(table, number):
    rows = table["rows"]
    name = ROW.value or (next(iter(rows)) if len(rows) == 1 else None)
    return name, one_of(f"--table={number} --row", name, rows)
