"""One page about several runs: where their configs differ, their metrics as curves, samples."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from phenaki.errors import UserError
from phenaki.io import checkpoint, paths
from phenaki.io.html_report import Report
from phenaki.io.paths import AnyPath, PathLike
from phenaki.train import logs

NEVER = ("step", "seconds", "seconds_waited")  # of a line; not metrics
_SHEET = re.compile(r"\d+\.png")  # of samples, by step
DETAILS = "masked_"  # loss and accuracy by tenths of the masked fraction: twenty curves more


def page(runs: Sequence[PathLike], metrics: Sequence[str] = ()) -> Report:
    """The page of training runs, with the `metrics` of that names, or all but details.

    Raises:
        UserError: one is no run, has logged nothing, or none has such a metric.
    """
    folders = [paths.path(run) for run in runs]
    names = _names([str(run) for run in runs])
    configs = dict(zip(names, map(_config, folders), strict=True))
    lines = {name: _lines(folder) for name, folder in zip(names, folders, strict=True)}
    report = Report(f"{len(runs)} runs")
    report.text("## Configs")
    rows = differences(configs)
    if rows:
        report.table(["field", *names], rows)
    else:
        report.text("All fields are equal.")
    chosen = _metrics(lines, metrics)
    report.text("## Newest values")
    report.table(["", *names], _newest(lines, chosen))
    report.text("## Curves")
    for metric in chosen:
        series = _series(lines, metric)
        if any(np.isfinite(ys).any() for _, ys in series.values()):
            report.curve(metric, series, "step", metric.rpartition("/")[2])
        else:
            report.text(f"### {metric}\nNo value is finite.")
    _add_samples(report, dict(zip(names, folders, strict=True)))
    return report


def _names(runs: Sequence[str]) -> list[str]:
    """Short names that differ: without the folders that all have in common, and numbered twins."""
    tails = [os.path.basename(run.rstrip("/")) or run for run in runs]
    names = tails if len(set(tails)) == len(tails) else list(runs)
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name
            for i, name in enumerate(names)]  # fmt: skip


def _config(folder: AnyPath) -> dict[str, Any]:
    if not checkpoint.is_run(folder):
        raise UserError(f"{folder}: is not a run (it has no config.json); give its --workdir.")
    return checkpoint.load_config(folder).to_dict()


def _lines(folder: AnyPath) -> list[dict[str, Any]]:
    found = logs.read(folder) if paths.is_file(folder / logs.FILE) else []
    if not found:
        raise UserError(f"{folder}: has logged nothing yet; config.train.log_every says when.")
    numbers = [{k: v for k, v in line.items() if isinstance(v, int | float)} for line in found]
    return numbers


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row per field that is not equal in all: the field and its value in each, or a dash."""
    flat = [flatten_dict(dict(config), sep=".") for config in configs.values()]
    paths_of_all = dict.fromkeys(path for config in flat for path in config)
    rows = []
    for path in paths_of_all:
        values = [repr(config[path]) if path in config else "–" for config in flat]
        if len(set(values)) > 1:
            rows.append([path, *values])
    return rows


def _metrics(lines: Mapping[str, Sequence[Mapping[str, Any]]], given: Sequence[str]) -> list[str]:
    known = dict.fromkeys(x for of in lines.values() for line in of for x in line if x not in NEVER)
    if unknown := [name for name in given if name not in known]:
        raise UserError(
            f"--metric={unknown[0]}: no run has logged it; there are {', '.join(known)}."
        )
    return list(given) or [name for name in known if DETAILS not in name]


def _newest(lines: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str]) -> list[list]:
    rows: list[list] = [["step", *(of[-1]["step"] for of in lines.values())]]
    for metric in metrics:
        values = [[line[metric] for line in of if metric in line] for of in lines.values()]
        rows.append([metric, *(float(of[-1]) if of else None for of in values)])
    return rows


def _series(lines: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> dict[str, Any]:
    found = {}
    for name, of in lines.items():
        points = [(line["step"], line[metric]) for line in of if metric in line]
        if points:
            found[name] = tuple(zip(*points, strict=True))
    return found


def _add_samples(report: Report, folders: Mapping[str, AnyPath]) -> None:
    """The newest sheet of samples of each run that has one."""
    sheets = []
    for name, folder in folders.items():
        found = [file for file in paths.names(folder / "samples") if _SHEET.fullmatch(file)]
        if found:
            content = (folder / "samples" / found[-1]).read_bytes()
            step = found[-1].removesuffix(".png").lstrip("0") or "0"
            sheets.append((content, f"{name}, step {step}", None))
    if sheets:
        report.text("## Samples")
        report.figures(sheets, column=1000)
