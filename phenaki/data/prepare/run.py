"""Media in any layout become a data set, a report of every file, a manifest and a contact sheet."""

import contextlib
import dataclasses
import fcntl
import functools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import PIL

from phenaki.data import format
from phenaki.data.prepare import contact_sheet, ingest, shards, workers
from phenaki.data.prepare import report as summary
from phenaki.data.prepare.filters import Filters
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError

SHEET = "contact_sheet.png"
SIZES = (8, 4096)  # pixels
MAX_FPS = 240
MANY = 64  # shards that are worth the start of processes with TensorFlow in them

text = summary.text


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """What the flags of scripts/prepare_data.py say; the same names."""

    input: Path | str
    output: Path
    captions: str | None = None
    layout: str = "auto"
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source_fps: float | None = None
    frames: int = 11
    fps: float = 8.0
    height: int = 128
    width: int = 128
    validation: float = 0.1
    encoding: format.Encoding = "jpeg"
    quality: int = 95
    limit: int | None = None
    filters: Filters = Filters()
    drop_duplicates: bool = False
    hosts: int = 1
    workers: int = 1
    overwrite: bool = False

    def check(self) -> None:
        """Raises UserError for numbers that cannot be meant."""
        if self.frames < 3 or self.frames % 2 == 0:
            nearest = max(3, self.frames + 1 - self.frames % 2)
            raise UserError(
                f"--frames={self.frames}: must be 1 + 2n, at least 3 (frame 0 is tokenized alone, "
                f"the others in pairs); nearest is {nearest}."
            )
        for name, rate in (("fps", self.fps), ("source_fps", self.source_fps)):
            if rate is not None and not 0 < rate <= MAX_FPS:
                raise UserError(
                    f"--{name}={rate:g}: must be above 0 and at most {MAX_FPS}, such as 8."
                )
        for size in (self.height, self.width):
            if not SIZES[0] <= size <= SIZES[1]:
                raise UserError(
                    f"--size={size}: must be {SIZES[0]} to {SIZES[1]} pixels, such as 128."
                )
        if not 0 <= self.validation < 1:
            raise UserError(f"--validation={self.validation:g}: must be a share of 0 to below 1.")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality={self.quality}: must be 1 to 100, such as 95.")
        if min(self.workers, self.hosts) < 1 or (self.limit is not None and self.limit < 1):
            raise UserError("--workers, --hosts and --limit must be at least 1.")
        self.filters.check()

    def config(self, layout: str) -> dict[str, Any]:
        """All that decides the bytes of the data set, the libraries that decode included."""
        left_out = {"input", "output", "captions", "workers", "overwrite", "layout"}
        given = {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}
        given["fields"] = dict(self.fields)
        return given | {"layout": layout, "av": av.__version__, "pillow": PIL.__version__}


Runner = Callable[[Callable[[Any], Any], list, Callable[[Any], Any] | None], Iterable]


def prepare(
    options: PrepareOptions,
    progress: Callable[[int], Any] | None = None,
    runner: Runner | None = None,
) -> dict:
    """Writes `options.output` and returns the report.

    The directory appears only when all is written. A run that was stopped leaves its work beside
    it, in a hidden directory: the same command takes up from there.

    Args:
        options: checked here before anything is decoded.
        progress: called with the number of files; gives a context manager with
            `update(count, note)`, such as `Progress`.
        runner: maps a function over tasks, such as `beam.run`; by default `options.workers`
            processes.

    Raises:
        UserError: bad options, captions or folders, a full disk, or not one file could be read.
    """
    options.check()
    found = find.find(
        options.input, options.captions, options.layout, options.fields, options.source_fps
    )
    with _claim(options) as partial:
        try:
            report = _write(options, found, partial, progress or _Silent, runner or _pool(options))
        except OSError as error:
            raise UserError(
                f"{options.output}: cannot be written: {error.strerror}. "
                "Once that is mended, the same command goes on."
            ) from error
        if report["files"]["read"]:
            _move(partial / "set", options.output)
        shutil.rmtree(partial, ignore_errors=True)
    if not report["files"]["read"]:
        lost = [*report["skipped"], *({"file": p["name"]} | p for p in report["problems"])]
        first = f"; the first, {lost[0]['file']}: {lost[0]['reason']}" if lost else ""
        raise UserError(f"{options.input}: none of its {len(found)} files could be used{first}.")
    return report


class _Silent(contextlib.nullcontext):
    def update(self, count: int, note: str = "") -> None:
        """Shows nothing."""

    def __enter__(self) -> "_Silent":
        return self


def _pool(options: PrepareOptions) -> Runner:
    def run(function, tasks, crashed):
        alone = crashed is None and len(tasks) < MANY
        return workers.run(function, tasks, 1 if alone else options.workers, crashed)

    return run


@contextlib.contextmanager
def _claim(options: PrepareOptions) -> Iterator[Path]:
    """The working directory beside the output, for this run alone."""
    output, source = options.output.absolute(), Path(options.input).resolve()
    if output.resolve() == source or source in output.resolve().parents:
        raise UserError(f"{options.output}: must not lie inside the input {options.input}.")
    if output.is_dir() and any(output.iterdir()):
        if not options.overwrite:
            raise UserError(f"{options.output}: exists and is not empty; --overwrite replaces it.")
        if not (output / "features.json").is_file():
            raise UserError(f"{options.output}: not a data set, so --overwrite leaves it alone.")
    elif output.exists() and not output.is_dir():
        raise UserError(f"{options.output}: a file; the output is a directory.")
    partial = output.with_name(f".{output.name}.partial")
    try:
        (partial / "spool").mkdir(parents=True, exist_ok=True)
        lock = (partial / "lock").open("w")
    except OSError as error:
        raise UserError(f"{options.output}: cannot be written: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{options.output}: another run is writing it.") from None
        yield partial


def _write(
    options: PrepareOptions, found: find.Sources, partial: Path, progress, runner: Runner
) -> dict:
    """Cuts what is not cut yet, writes the data set into `partial`/set, returns the report."""
    began = time.perf_counter()
    form = format.Format(
        options.frames, float(options.fps), options.height, options.width, options.encoding
    )
    job = ingest.Job(form, options.quality, options.limit, options.filters, partial / "spool")
    with (partial / summary.SKIPPED_LOG).open(
        "w", encoding="utf-8", errors="backslashreplace"
    ) as letters:
        tally = summary.IngestReport(letters)
        splits = _cut(options, found, job, progress, runner, tally)
    records = {name: split.records for name, split in splits.items()}
    given = {name: _plain(value) for name, value in dataclasses.asdict(options).items()}
    report = tally.report(given, found, records, time.perf_counter() - began)
    if splits:
        directory, marks = partial / "set", partial / "written"
        for made in (directory, marks):
            made.mkdir(exist_ok=True)
        cut_up = shards.shards(splits, directory, options.hosts)
        files = [shard for split in cut_up.values() for shard in split]
        shards.clear(directory, files)
        write = functools.partial(shards.write, form=form, marks=marks)
        noted = iter(runner(write, files, None))
        written = {split: [next(noted) for _ in part] for split, part in cut_up.items()}
        (partial / summary.SKIPPED_LOG).rename(directory / summary.SKIPPED_LOG)
        shards.finish(directory, form, written, options.config(found.layout))
        contact_sheet.write(directory, directory / SHEET, contact_sheet.choose(splits))
        report["seconds"] = round(time.perf_counter() - began, 1)
        summary.save(report, directory)
    return report


def _cut(
    options: PrepareOptions,
    found: find.Sources,
    job: ingest.Job,
    progress,
    runner: Runner,
    tally: summary.IngestReport,
) -> dict[str, shards.SplitIndex]:
    """The clips of each split; what gives none goes to the tally."""
    cut, crashed = (functools.partial(f, job=job) for f in (ingest.cut, ingest.crashed))
    plan = shards.ShardPlan(options.validation, options.drop_duplicates)
    for problem in found.problems:
        tally.problem(problem)
    with progress(len(found)) as shown:
        results = runner(cut, list(found.units), crashed)
        for done, unit in zip(results, found.units, strict=True):
            for outcome in done.outcomes:
                tally.item(outcome, plan.add(done.clips, outcome))
            for problem in done.problems:
                tally.problem(problem)
            shown.update(len(unit), unit.name)
    return plan.splits


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _move(new: Path, output: Path) -> None:
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    new.rename(output)
    shutil.rmtree(old, ignore_errors=True)
