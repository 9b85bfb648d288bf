"""A number with everything that it depends on, and how it is set beside the paper's."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phenaki.io.artifacts import write_json

PROXY = "_proxy"  # ends the name of what untrained networks measured


@dataclasses.dataclass(frozen=True)
class Score:
    """One score. Two of them compare only where all but the value, interval and floor agree."""

    name: str  # ends in _proxy under untrained networks
    value: float
    n: int  # generated clips or pictures
    n_real: int  # of the reference; 0 where there is none
    frames: int  # of each clip that were scored
    size: tuple[int, int]  # height and width before any resize of the extractor
    fps: float
    seed: int
    extractor: str  # network and features, "none" for plain pixels
    checksum: str  # of the network's parameters
    resize: str  # the rule between the clips' size and the network's
    value_range: str  # of the pixels that the network saw
    sampler: Mapping[str, Any] | None = None  # steps, choice_temperature, guidance
    interval: tuple[float, float] | None = None  # 95 %, of resampled clips and their samples
    floor: float | None = None  # the same score of two parts of the real clips, apart
    floor_n: int = 0  # clips of each part: n where there are enough
    note: str = ""

    @property
    def proxy(self) -> bool:
        """Whether the number means nothing outside this project."""
        return self.name.endswith(PROXY)


def save(path: Path, records: Sequence[Score], **facts: Any) -> None:
    """Writes {"facts": ..., "records": [...]}."""
    found = {**facts, "records": [dataclasses.asdict(record) for record in records]}
    write_json(path, found, indent=2)


def shown(value: int | float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4g}"


def ours(record: Score) -> str:
    """The value and half of its interval."""
    if record.interval is None:
        return shown(record.value)
    return f"{record.value:.4g} ± {(record.interval[1] - record.interval[0]) / 2:.2g}"


def floor(record: Score) -> str:
    """With the clips of each of its parts."""
    return "-" if record.floor is None else f"{record.floor:.4g} (n {record.floor_n})"


def beside(
    records: Sequence[Score], printed: Mapping[str, int | float], differs: Mapping[str, str]
) -> list[list[str]]:
    """Rows (measure, ours, noise floor, n, paper, what to make of it) for a table.

    `printed` are the paper's numbers by measure; `differs` says why one of them is not the same
    measure. A proxy never has a number of the paper in its row.
    """
    rows = []
    for record in records:
        paper, remark = "", record.note
        measure = record.name.removesuffix(PROXY).split("/")[0]
        if record.proxy:
            remark = _joined("untrained features", remark)
        elif measure in printed:
            paper = shown(printed[measure])
            why = differs.get(measure)
            remark = _joined(f"not comparable: {why}" if why else "comparable", remark)
        rows.append([record.name, ours(record), floor(record), str(record.n), paper, remark])
    names = {record.name.removesuffix(PROXY).split("/")[0] for record in records}
    for name, value in printed.items():
        if name not in names:
            rows.append([name, "-", "-", "-", shown(value), "not measured"])
    return rows


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


HEADER = ["measure", "ours", "noise floor", "n", "paper", ""]


def lines(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    """Columns for a terminal."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
