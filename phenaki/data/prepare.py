"""A folder of media becomes a data set, a report of every file, and a contact sheet."""

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phenaki.data import builder, contact_sheet, ingest, sources
from phenaki.errors import UserError

REPORT = "report"  # .json and .txt
SHEET = "contact_sheet.png"
SIZES = (8, 4096)  # pixels
MAX_FPS = 240


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags of scripts/prepare_data.py say; the same names."""

    input: Path
    output: Path
    captions: str | None = None
    layout: str = "auto"
    frames: int = 11
    fps: float = 8.0
    height: int = 128
    width: int = 128
    validation: float = 0.1
    encoding: builder.Encoding = "jpeg"
    quality: int = 95
    limit: int | None = None
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
        if not 0 < self.fps <= MAX_FPS:
            raise UserError(
                f"--fps={self.fps:g}: must be above 0 and at most {MAX_FPS}, such as 8."
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
        if self.workers < 1 or (self.limit is not None and self.limit < 1):
            raise UserError("--workers and --limit must be at least 1.")


def prepare(options: Options, progress: Callable[[int], Any] | None = None) -> dict:
    """Writes `options.output` and returns the report.

    The directory appears only when all is written: a run that was stopped leaves no half data set.

    Args:
        options: checked here before anything is decoded.
        progress: called with the number of files; gives a context manager with
            `update(count, note)`, such as `cli.Progress`.

    Raises:
        UserError: bad options, captions or folders, a full disk, or not one file could be read.
    """
    options.check()
    found = sources.find(options.input, options.captions, options.layout)
    partial = _claim(options)
    try:
        report, places = _write(options, found, partial, progress or _Silent)
        if report["files"]["read"]:
            contact_sheet.write(partial, partial / SHEET, contact_sheet.choose(places))
            _save(report, partial)
            _move(partial, options.output)
    except OSError as error:
        raise UserError(f"{options.output}: cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if not report["files"]["read"]:
        first = report["skipped"][0]
        raise UserError(
            f"{options.input}: none of its {len(found)} files could be used; "
            f"the first, {first['file']}: {first['reason']}."
        )
    return report


class _Silent(contextlib.nullcontext):
    def update(self, count: int, note: str = "") -> None:
        """Shows nothing."""

    def __enter__(self) -> "_Silent":
        return self


def _claim(options: Options) -> Path:
    """Makes the working directory beside the output, so that an unwritable place is found now."""
    output, source = options.output.absolute(), options.input.resolve()
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
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "spool").mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{options.output}: cannot be written: {error.strerror}.") from None
    return partial


def _write(options: Options, found: sources.Sources, partial: Path, progress) -> tuple[dict, dict]:
    """Returns the report, and of each file read its split, first record there and their count."""
    began = time.perf_counter()
    form = builder.Format(
        options.frames, float(options.fps), options.height, options.width, options.encoding
    )
    job = ingest.Job(form, options.quality, options.limit, partial / "spool")
    skipped, captioned, places = [], 0, {}
    read = dict.fromkeys(builder.KINDS, 0)
    with builder.Writer(partial, form) as writer:
        running = ingest.outcomes(found, job, min(options.workers, len(found)))
        with contextlib.closing(running), progress(len(found)) as shown:
            for outcome in running:
                item = outcome.item
                split = f"{outcome.kind}_{builder.split_of(item.key, options.validation)}"
                first = writer.counts.get(split, 0)
                for record in outcome.records():
                    writer.add(split, record)
                if outcome.reason:
                    skipped.append({"file": item.key, "reason": outcome.reason})
                else:
                    places[item.key] = (split, first, outcome.clips)
                    read[outcome.kind] += 1
                    captioned += item.caption is not None
                shown.update(1, item.key)
        counts = dict(sorted(writer.counts.items()))
    shutil.rmtree(partial / "spool")
    given = dataclasses.asdict(options) | {
        "input": str(options.input),
        "output": str(options.output),
    }
    report = {
        "options": given,
        "captions": found.layout,
        "files": {
            "found": len(found),
            "read": sum(read.values()),
            "videos": read["video"],
            "images": read["image"],
            "captioned": captioned,
            "skipped": len(skipped),
            "other": found.other,
        },
        "clips": counts,
        "skipped": skipped,
        "problems": [{"name": name, "reason": reason} for name, reason in found.problems],
        "seconds": round(time.perf_counter() - began, 1),
    }
    return report, places


def _save(report: dict, directory: Path) -> None:
    (directory / f"{REPORT}.json").write_text(
        json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    )
    (directory / f"{REPORT}.txt").write_text(text(report) + "\n")


def _move(partial: Path, output: Path) -> None:
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def text(report: dict, most: float = math.inf) -> str:
    """The report for people; at most `most` skipped files and problems are named."""
    files = report["files"]
    clips = ", ".join(f"{name} {count}" for name, count in report["clips"].items())
    lines = [
        f"captions: {report['captions']}; {files['captioned']} of {files['read']} files have one",
        f"files: {files['read']} read ({files['videos']} videos, {files['images']} stills), "
        f"{files['skipped']} skipped, {files['other']} neither video nor image",
        f"clips: {clips}",
        f"seconds: {report['seconds']}",
    ]
    for title, name in (("skipped", "file"), ("problems", "name")):
        entries = report[title]
        lines += [f"{title}: {len(entries)}"] * bool(entries)
        shown = entries if most >= len(entries) else entries[: int(most)]
        lines += [f"  {entry[name]}: {entry['reason']}" for entry in shown]
        lines += [f"  ... and {len(entries) - len(shown)} more"] * (len(entries) > len(shown))
    return "\n".join(lines)
