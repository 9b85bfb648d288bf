"""Scores with everything they depend on, and their comparison with the paper's numbers."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from phenaki.io.artifacts import write_json
from phenaki.io.paths import PathLike
from phenaki.sampling.options import SamplingOptions

PROXY = "_proxy"  # ends the name of what untrained networks measured


@dataclasses.dataclass(frozen=True)
class Score:
    """One measured value. Two scores compare where all but the value, interval and floor agree."""

    name: str  # ends in _proxy under untrained networks
    value: float
    n: int  # generated clips or images
    n_real: int  # of the reference; 0 where there is none
    frames: int  # of each clip that were scored
    size: tuple[int, int]  # height and width before any resize of the extractor
    fps: float
    seed: int
    extractor: str  # network and features, "none" for plain pixels
    checksum: str  # of the network's parameters
    resize: str  # the rule between the clips' size and the network's
    value_range: str  # of the pixels that the network saw
    sampler: Mapping[str, Any] | None = None  # every option; three of them in old records
    interval: tuple[float, float] | None = None  # 95 %, of resampled clips and their samples
    floor: float | None = None  # the same score of two disjoint parts of the real clips
    floor_n: int = 0  # clips of each part: n where there are enough
    deviation: float | None = None  # of repeated samplings, whose mean `value` is
    note: str = ""
    settings: Mapping[str, Any] | None = None  # all else that it depends on; None in old records

    @property
    def proxy(self) -> bool:
        """Whether the network is untrained, so that the value compares within this project only."""
        return self.name.endswith(PROXY)


def save_scores(path: PathLike, scores: Sequence[Score], **facts: Any) -> None:
    """Writes a JSON object of `facts` and "records", the scores."""
    write_json(path, {**facts, "records": [dataclasses.asdict(s) for s in scores]}, indent=2)


def number(value: int | float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def value_cell(score: Score) -> str:
    """The value ± half of its interval, or ± the deviation of repeated samplings."""
    if score.deviation is not None:
        return f"{score.value:.4g} ± {score.deviation:.2g}"
    if score.interval is None:
        return number(score.value)
    low, high = score.interval
    return f"{score.value:.4g} ± {(high - low) / 2:.2g}"


def floor_cell(score: Score) -> str:
    """The noise floor, with the number of clips of each part."""
    return "-" if score.floor is None else f"{score.floor:.4g} (n {score.floor_n})"


def sampler_cell(sampler: Mapping[str, Any]) -> str:
    """The sampling options, without those at the value that all models share."""
    own = {field.name: field.default for field in dataclasses.fields(SamplingOptions)}
    # Settings on record have lists.
    own = {name: list(x) if isinstance(x, tuple) else x for name, x in own.items()}
    given = {name: value for name, value in sampler.items() if value != own.get(name)}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in given.items()
    )


def repeated(runs: Sequence[Sequence[Score]]) -> list[Score]:
    """Mean and deviation of every score over several samplings, each with a seed of its own."""
    if len(runs) == 1:
        return list(runs[0])
    result = []
    for scores in zip(*runs, strict=True):
        values = [score.value for score in scores]
        note = _joined(scores[0].note, f"± of {len(runs)} samplings")
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        changed: Any = dict(value=mean, deviation=deviation, interval=None, note=note)
        result.append(dataclasses.replace(scores[0], **changed))
    return result


def compare(
    scores: Sequence[Score],
    printed: Mapping[str, int | float],
    differs: Mapping[str, str],
    deviations: Mapping[str, float] = MappingProxyType({}),
) -> list[list[str]]:
    """Rows (measure, ours, noise floor, n, paper, remark) for a table.

    `printed` are the paper's numbers by measure, `deviations` what it prints after ±; `differs`
    says why a measure is not the paper's.
    The row of a proxy never has a number of the paper.
    """
    rows = []
    for score in scores:
        paper, remark = "", score.note
        measure = _measure(score)
        if score.proxy:
            remark = _joined("untrained features", remark)
        elif measure in printed:
            paper = number(printed[measure])
            paper += f" ± {deviations[measure]:g}" if measure in deviations else ""
            why = differs.get(measure)
            remark = _joined(f"not comparable: {why}" if why else "comparable", remark)
        rows.append([score.name, value_cell(score), floor_cell(score), str(score.n), paper, remark])
    measured = set(map(_measure, scores))
    for name, value in printed.items():
        if name not in measured:
            rows.append([name, "-", "-", "-", number(value), "not measured"])
    return rows


def _measure(score: Score) -> str:
    """The measure of a score's name, MEASURE/VIEW_proxy."""
    return score.name.removesuffix(PROXY).split("/")[0]


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


HEADER = ["measure", "ours", "noise floor", "n", "paper", ""]


def text_table(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    """Aligned columns for a terminal."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
