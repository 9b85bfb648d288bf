"""Columns of a table that hold the start and the end of a segment of each row's file."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import segment_times
from phenaki.data.prepare.items import Segment, kind_of
from phenaki.data.prepare.segment_times import Unit
from phenaki.errors import UserError, did_you_mean

FIELDS = ("start", "end", "duration", "segment", "unit")
NONE = "none"  # --fields=start=none: the files are cut already
UNITS: dict[str, Unit] = {"seconds": "seconds", "s": "seconds", "ms": "ms", "frames": "frames"}
SAMPLE = 100  # rows that decide what the columns hold
_STARTS = {
    "start": ("end", "stop"),
    "begin": ("end", "stop"),
    "from": ("to",),
    "onset": ("offset",),
}
_OF_UNIT: dict[str, Unit] = {
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("frame", "frames", "frameno", "frameidx"), "frames"),
}
_PLAIN = set(
    "time times timestamp timestamps t ts s sec secs second seconds clip segment seg scene shot "
    "moment event video idx index number no in at of".split()
)
_PAIRS = tuple(
    "timestamps timestamp segments segment spans span time_range time_ranges range intervals "
    "interval moments moment times time start_end window windows relevant_windows".split()
)
_LENGTHS = ("duration", "length", "dur", "len")
# The times of MSR-VTT's own columns, written with a blank, are those of the source at `url`.
_MSRVTT = {"url", "start time", "end time"}
_IN_NAME = re.compile(r"[_\-#@. ]([\d:]+(?:\.\d+)?)[_\-]([\d:]+(?:\.\d+)?)$")


@dataclasses.dataclass(frozen=True)
class SegmentColumns:
    """The columns `start` and `end`, or `start` and `duration`, or `pairs` for lists of both."""

    start: str | None = None
    end: str | None = None
    duration: str | None = None
    pairs: str | None = None
    unit: Unit = "seconds"

    def __str__(self) -> str:
        names = ", ".join(
            name for name in (self.start, self.end, self.duration, self.pairs) if name
        )
        return (
            f"segments from {names} in {self.unit}; --fields=unit=frames (ms, seconds) changes the "
            "unit, --fields=start=none reads files that are cut already"
        )

    def shown(self, row: Mapping[str, object]) -> str:
        """The cells of a row as they are written."""
        names = (self.start, self.end, self.duration, self.pairs)
        return "-".join(str(row.get(name)) for name in names if name)

    def of(self, row: Mapping[str, object]) -> list[Segment | None]:
        """The segments of a row; [None] where all its times are blank: the complete file.

        Raises:
            ValueError: its values are not times.
        """
        if self.pairs:
            return [*segment_times.segments(row.get(self.pairs), self.unit)] or [None]
        starts, ends = (
            _listed(row.get(name or "")) for name in (self.start, self.end or self.duration)
        )
        if len(starts) != len(ends):
            raise ValueError(f"{len(starts)} starts and {len(ends)} ends")
        return [self._one(start, end) for start, end in zip(starts, ends, strict=True)]

    def _one(self, start: object, end: object) -> Segment | None:
        if self.duration:
            first, length = (segment_times.time(value, self.unit) for value in (start, end))
            if length is not None:
                first = first or Fraction(0)
                seconds = Segment(first, first + length)
                return dataclasses.replace(seconds, unit=segment_times.counted(self.unit))
            end = None
        return segment_times.segment(start, end, self.unit)


def _listed(value: object) -> Sequence[object]:
    found = segment_times.literal(value)
    return found if isinstance(found, list | tuple) else [found]


def find(
    table: Path, rows: Sequence[Mapping[str, object]], fields: Mapping[str, str]
) -> SegmentColumns | None:
    """The segment columns of a table, by --fields or by their names; None if it has none.

    Args:
        rows: the first `SAMPLE` rows.

    Raises:
        UserError: --fields names an unknown unit or column, or a start without an end.
    """
    chosen = {name: fields[name].lower() for name in FIELDS if name in fields}
    unit = chosen.pop("unit", None)
    if unit is not None and unit not in UNITS:
        raise UserError(
            f"--fields=unit={unit}: must be seconds, ms or frames{did_you_mean(unit, UNITS)}."
        )
    if not rows or NONE in chosen.values():
        return None
    for field, column in chosen.items():
        if column not in rows[0]:
            known = ",".join(name for name in rows[0] if name.strip())
            raise UserError(
                f"--fields={field}={column}: {table.name} has only {known}"
                f"{did_you_mean(column, rows[0])}."
            )
    columns = _chosen(chosen) if chosen else _named(table, rows)
    if columns and unit:
        columns = dataclasses.replace(columns, unit=UNITS[unit])
    return columns


def _chosen(names: dict[str, str]) -> SegmentColumns:
    if "segment" in names:
        return SegmentColumns(pairs=names["segment"], unit=_unit(names["segment"]))
    if "start" not in names or not {"end", "duration"} & set(names):
        raise UserError(
            f"--fields={','.join('='.join(pair) for pair in names.items())}: a segment needs start "
            "and end, or start and duration, or segment (a column of pairs)."
        )
    end, duration = names.get("end"), None if "end" in names else names["duration"]
    return SegmentColumns(names["start"], end, duration, unit=_unit(names["start"]))


def _named(table: Path, rows: Sequence[Mapping[str, object]]) -> SegmentColumns | None:
    """By usual names, if the values of some rows are times; seconds before frames."""
    names = rows[0]
    if _MSRVTT <= set(names):
        return None
    sure = _start_and_end(names)
    pairs = [
        SegmentColumns(pairs=name, unit=_unit(name))
        for name in names
        if _words(name) in _PAIRS or any(objects(row.get(name)) for row in rows)
    ]
    found = sorted(
        [*sure, *pairs, *_start_and_length(names)], key=lambda columns: columns.unit == "frames"
    )
    if columns := next((c for c in found if any(_holds(c, row) for row in rows)), None):
        return columns
    for columns, row in itertools.product(sure, rows):
        try:
            columns.of(row)
        except ValueError as error:
            raise UserError(
                f"{table}: {columns.start}: {error} (--fields=start=none: complete files)."
            ) from None
    return None


def objects(cell: object) -> bool:
    """Whether a cell holds a list of objects, such as {"start": 1, "end": 2, "caption": "a"}."""
    text = isinstance(cell, str) and cell.replace(" ", "").startswith("[{")
    found = segment_times.literal(cell) if text else None
    return isinstance(found, list) and isinstance(found[0], Mapping)


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _start_and_end(names: Iterable[str]) -> list[SegmentColumns]:
    by_words = {_words(name): name for name in names}
    found = []
    for words, name in by_words.items():
        for start, ends in _STARTS.items():
            rest = _without(words, start)
            if rest is None:
                continue
            for end in ends:
                partner = next((n for w, n in by_words.items() if _without(w, end) == rest), None)
                if partner:
                    found.append(SegmentColumns(name, partner, unit=_unit(name)))
    return found


def _start_and_length(names: Iterable[str]) -> list[SegmentColumns]:
    by_words = {_words(name): name for name in names}
    rests = {n: [_without(w, length) for length in _LENGTHS] for w, n in by_words.items()}
    # That of the whole video says nothing of a segment.
    lengths = [
        name
        for name, found in rests.items()
        if any(rest is not None and "video" not in rest for rest in found)
    ]
    starts = [name for words, name in by_words.items() if _is_start(words)]
    return [
        SegmentColumns(start, None, length, unit=_unit(start))
        for start in starts
        for length in lengths
        if _unit(length) == _unit(start)
    ]


def unread(row: Mapping[str, object]) -> list[str]:
    """The filled columns whose names say that they hold times of segments."""
    named = (name for name, cell in row.items() if str(cell or "").strip())
    return [name for name in named if _words(name) in _PAIRS or _is_start(_words(name))]


def _is_start(words: str) -> bool:
    return any(_without(words, mark) is not None for mark in ("start", "begin", "onset"))


def _without(words: str, mark: str) -> tuple[str, ...] | None:
    """What else a name says: start_time and starttime -> (time,); None for another name."""
    parts = words.split("_")
    if mark not in parts:
        joined = f"^{mark}(?=(?:time|timestamp|sec|frame|ms|milli))|(?<=time){mark}$"
        parts = [part for part in re.sub(joined, f"_{mark}_", words).split("_") if part]
    if parts.count(mark) != 1:
        return None
    rest = tuple(part for part in parts if part != mark)
    return rest if all(part in _PLAIN or part in _OF_UNIT for part in rest) else None


def _unit(name: str) -> Unit:
    parts = re.sub(r"(start|end|begin|stop)", r"_\1_", _words(name)).split("_")
    return next((_OF_UNIT[part] for part in parts if part in _OF_UNIT), "seconds")


def _holds(columns: SegmentColumns, row: Mapping[str, object]) -> bool:
    try:
        return any(columns.of(row))
    except ValueError:
        return False


def cut_already(key: str, segment: Segment) -> bool:
    """Whether a file's name ends in the times of the segment: id_000012_000022.mp4 is cut."""
    cut = _cut(key)
    return cut is not None and cut[1:] == (segment.start, segment.end)


def _cut(key: str) -> tuple[str, Fraction | None, Fraction | None] | None:
    """(id, start, end) of a file whose name ends in times."""
    stem = PurePosixPath(key).stem
    match = _IN_NAME.search(stem)
    try:
        times = [segment_times.time(part) for part in match.groups()] if match else []
    except ValueError:
        return None
    return (stem[: match.start()], times[0], times[1]) if match else None


class CutFiles:
    """Finds the files that are cut already by the id and the times of their rows."""

    def __init__(self, media: Iterable[str]):
        self._keys = {cut: key for key in media if (cut := _cut(key))}

    def key(
        self, name: str, row: Mapping[str, object], columns: SegmentColumns | None
    ) -> str | None:
        """The file id_000012_000022.mp4 of a row that names `name`, id or id.mp4, and its times."""
        try:
            segments = columns.of(row) if columns and self._keys else []
        except ValueError:
            return None
        if len(segments) != 1 or segments[0] is None:
            return None
        stem = PurePosixPath(name).stem if kind_of(name) else name.strip()
        return self._keys.get((stem, segments[0].start, segments[0].end))
