"""Prepares a data set from media in any layout, with report, manifest and contact sheet."""

import contextlib
import dataclasses
import functools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import av
import PIL

from phenaki.data import format
from phenaki.data.format import NO_TEMPLATE
from phenaki.data.prepare import (
    bucket,
    contact_sheet,
    ingest,
    publish,
    report,
    shards,
    workdir,
    workers,
)
from phenaki.data.prepare.filters import Filters
from phenaki.data.prepare.items import Inventory
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError
from phenaki.io.paths import AnyPath

SIZES = (8, 4096)  # pixels
MAX_FPS = 240
PARALLEL_SHARDS = 64  # fewer do not repay starting processes that import TensorFlow


@dataclasses.dataclass(frozen=True)
class PrepareOptions:
    """The flags of scripts/prepare_data.py, by the same names."""

    input: AnyPath | str
    output: AnyPath
    captions: str | None = None
    layout: str = "auto"
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source_fps: float | None = None
    frames: int = 11
    fps: float | Literal["native"] = 8.0
    height: int = 128
    width: int = 128
    caption_template: str = NO_TEMPLATE
    validation: float = 0.1
    source_splits: bool = True
    encoding: format.Encoding = "jpeg"
    quality: int = 95
    limit: int | None = None
    filters: Filters = Filters()
    drop_duplicates: bool = False
    hosts: int = 1
    workers: int = 1
    overwrite: bool = False

    def check(self) -> None:
        """Raises UserError for values out of range."""
        if self.frames < 3 or self.frames % 2 == 0:
            nearest = max(3, self.frames + 1 - self.frames % 2)
            raise UserError(
                f"--frames={self.frames}: must be 1 + 2n, at least 3 (frame 0 is tokenized alone, "
                f"the others in pairs); nearest is {nearest}."
            )
        for name, rate in (("fps", self.fps), ("source_fps", self.source_fps)):
            if rate is not None and rate != "native" and not 0 < rate <= MAX_FPS:
                raise UserError(
                    f"--{name}={rate:g}: must be above 0 and at most {MAX_FPS}, such as 8."
                )
        for size in (self.height, self.width):
            if not SIZES[0] <= size <= SIZES[1]:
                raise UserError(
                    f"--size={size}: must be {SIZES[0]} to {SIZES[1]} pixels, such as 128."
                )
        if not 0 <= self.validation < 1:
            raise UserError(f"--validation={self.validation:g}: must be a fraction, 0 to below 1.")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality={self.quality}: must be 1 to 100, such as 95.")
        if min(self.workers, self.hosts) < 1 or (self.limit is not None and self.limit < 1):
            raise UserError("--workers, --hosts and --limit must be at least 1.")
        if self.caption_template.count("{}") != 1:
            raise UserError(
                f"--caption_template={self.caption_template}: must have {{}} once, for the name of "
                'the class, as in "a video of {}".'
            )
        self.filters.check()

    def settings(self, found: Inventory) -> dict[str, Any]:
        """All that determines the bytes of the data set, with the versions of the decoders."""
        excluded = {"input", "output", "captions", "workers", "overwrite", "layout"}
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in excluded}
        fields["fields"] = dict(self.fields)
        if found.camera:
            fields["camera"] = found.camera
        return fields | {"layout": found.layout, "av": av.__version__, "pillow": PIL.__version__}


# (function, tasks, crashed) -> function(task) in the order of the tasks; see `workers.run`.
Runner = Callable[[Callable[[Any], Any], list, Callable[[Any], Any] | None], Iterable]


def prepare(
    options: PrepareOptions,
    progress: Callable[[int], Any] | None = None,
    runner: Runner | None = None,
) -> dict:
    """Writes the data set `options.output` and returns the report.

    A new directory appears only when it is complete; in one that is replaced, or was there and
    empty, features.json comes last. A stopped run leaves its work in a hidden
    directory next to it, from which the same command resumes.

    Args:
        options: checked before anything is decoded.
        progress: called with the number of files; returns a context manager with
            `update(count, note)`, such as `Progress`.
        runner: maps a function over tasks, such as `beam.run`; by default `options.workers`
            processes.

    Raises:
        UserError: bad options, captions or folders, a full disk, or no readable file.
    """
    options.check()
    workdir.admit(options.output, options.input, options.overwrite, options.captions)
    if bucket.is_needed(options):
        return bucket.prepare(options, prepare, progress, runner)
    found = _find(options)
    with workdir.claim(options.output) as partial:
        try:
            summary = _write(
                options, found, partial, progress or _NoProgress, runner or _pool(options)
            )
        except OSError as error:
            raise UserError(
                f"{options.output}: cannot be written: {error.strerror}. "
                "Once this is fixed, the same command resumes."
            ) from error
        if summary["files"]["read"]:
            publish.publish(partial / "set", options.output.resolve())
        shutil.rmtree(partial, ignore_errors=True)
    if not summary["files"]["read"]:
        skipped = [*summary["skipped"], *({"file": p["name"]} | p for p in summary["problems"])]
        first = f"; the first, {skipped[0]['file']}: {skipped[0]['reason']}" if skipped else ""
        raise UserError(f"{options.input}: none of its {len(found)} files could be used{first}.")
    return summary


def _find(options: PrepareOptions) -> Inventory:
    found = find.find(
        options.input,
        options.captions,
        options.layout,
        options.fields,
        options.source_fps,
        options.caption_template,
    )
    if options.caption_template != NO_TEMPLATE and not found.classes:
        raise UserError(
            f"--caption_template={options.caption_template}: needs names of classes, but the "
            f"layout is: {found.layout}."
        )
    return found


class _NoProgress(contextlib.nullcontext):
    def update(self, count: int, note: str = "") -> None:
        """Prints nothing."""

    def __enter__(self) -> "_NoProgress":
        return self


def _pool(options: PrepareOptions) -> Runner:
    def run(function, tasks, crashed):
        alone = crashed is None and len(tasks) < PARALLEL_SHARDS
        return workers.run(function, tasks, 1 if alone else options.workers, crashed)

    return run


def _write(
    options: PrepareOptions, found: Inventory, partial: Path, progress, runner: Runner
) -> dict:
    """Decodes what is not decoded yet and writes the data set `partial`/set; returns the report."""
    began = time.perf_counter()
    form = format.ClipFormat(
        options.frames,
        0.0 if options.fps == "native" else float(options.fps),
        options.height,
        options.width,
        options.encoding,
        options.caption_template,
    )
    job = ingest.Job(form, options.quality, options.limit, options.filters, partial / "spool")
    log_path = partial / report.SKIPPED_LOG
    with log_path.open("w", encoding="utf-8", errors="backslashreplace") as log:
        counts = report.IngestReport(log)
        splits = _decode(options, found, job, progress, runner, counts)
    records = {name: split.records for name, split in splits.items()}
    fields = {name: _plain(value) for name, value in dataclasses.asdict(options).items()}
    summary = counts.report(fields, found, records, time.perf_counter() - began)
    if splits:
        directory = partial / "set"
        directory.mkdir(exist_ok=True)
        written = _write_shards(options, splits, form, partial, runner)
        log_path.rename(directory / report.SKIPPED_LOG)
        shards.finish(directory, form, written, options.settings(found))
        contact_sheet.write(directory, directory / publish.SHEET, contact_sheet.choose(splits))
        summary["seconds"] = round(time.perf_counter() - began, 1)
        report.save(summary, directory)
    return summary


def _write_shards(
    options: PrepareOptions,
    splits: dict[str, shards.SplitIndex],
    form: format.ClipFormat,
    partial: Path,
    runner: Runner,
) -> dict[str, list[dict[str, Any]]]:
    """Writes the shards that are not complete yet; returns name, size and checksum of all."""
    directory, marks = partial / "set", partial / "written"
    marks.mkdir(exist_ok=True)
    planned = shards.shards(splits, directory, options.hosts)
    every = [shard for of_split in planned.values() for shard in of_split]
    shards.clear(directory, every)
    write = functools.partial(shards.write, form=form, marks=marks)
    results = iter(runner(write, every, None))
    return {split: [next(results) for _ in of_split] for split, of_split in planned.items()}


def _decode(
    options: PrepareOptions,
    found: Inventory,
    job: ingest.Job,
    progress,
    runner: Runner,
    counts: report.IngestReport,
) -> dict[str, shards.SplitIndex]:
    """Decodes all units; returns the clips of each split and counts what is skipped."""
    decode, retry = (
        functools.partial(f, job=job) for f in (ingest.decode_unit, ingest.retry_items)
    )
    plan = shards.ShardPlan(options.validation, options.drop_duplicates, options.source_splits)
    for problem in found.problems:
        counts.problem(problem)
    for unused in found.unused:
        counts.unused(unused)
    with progress(len(found)) as shown:
        results = runner(decode, list(found.units), retry)
        for done, unit in zip(results, found.units, strict=True):
            for result in done.items:
                counts.item(result, plan.add(done.clips, result))
            for problem in done.problems:
                counts.problem(problem)
            shown.update(len(unit), unit.name)
    return plan.splits


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, AnyPath) else value
