"""Times of segments as tables and annotation files write them: seconds, H:M:S.ms, frames."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Literal

from phenaki.data.prepare.items import Segment

Unit = Literal["seconds", "ms", "frames"]
_BLANK = {"", "nan", "none", "null", "na", "n/a"}
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:[.,]\d*)?)")
_LETTERS = re.compile(r"(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+(?:\.\d*)?)s(?:ecs?|econds?)?)?")
# Between two times, the surest first: a comma may be that of 00:01,500 or of 1,5.
_BETWEEN = tuple(
    re.compile(rf"\s*(?:{mark})\s*")
    for mark in (r"-+>|→", r"\bto\b", "~|–|—|-", ";", r"\.{2,}", r",(?=\s)", ",", r"\s")
)
_COMMA = re.compile(r"\d+,\d{1,2}")  # a decimal one; 1,000 may be a thousand
_SHOWN = 40  # characters of a wrong value in its message


def time(value: object, unit: Unit = "seconds") -> Fraction | None:
    """A time in seconds, or a number of frames; None for a blank one.

    Args:
        value: a number; or a text of one, H:M:S.ms, M:S or 1h2m3s (which are never frames).

    Raises:
        ValueError: anything else, or below 0.
    """
    text = str(value).strip().lower()
    if value is None or text in _BLANK:
        return None
    match = _CLOCK.fullmatch(text) or _LETTERS.fullmatch(text)
    if match is None:
        return _number(text, unit)
    hours, minutes, seconds = (Fraction((g or "0").replace(",", ".")) for g in match.groups())
    if unit == "frames":
        raise ValueError(f"{text[:_SHOWN]!r} is not a number of frames")
    if (seconds >= 60 and (match[1] or match[2])) or (minutes >= 60 and match[1]):
        raise ValueError(f"{text[:_SHOWN]!r} has more than 59 minutes or seconds")
    return hours * 3600 + minutes * 60 + seconds


def _number(text: str, unit: Unit) -> Fraction:
    try:
        number = Decimal(text.replace(",", ".") if _COMMA.fullmatch(text) else text)
        value = Fraction(number) if abs(number.adjusted()) < 18 or not number else None
    except (InvalidOperation, ValueError, OverflowError):
        value = None
    if value is None:
        raise ValueError(f"{text[:_SHOWN]!r} is not a time: seconds, H:M:S.ms or frames")
    if value < 0:
        raise ValueError(f"{text[:_SHOWN]} is below 0")
    if unit == "frames" and value.denominator != 1:
        raise ValueError(f"{text[:_SHOWN]} is not a number of frames")
    return value / 1000 if unit == "ms" else value


def segment(start: object, end: object, unit: Unit = "seconds", slack: int = 1) -> Segment | None:
    """The segment between two times; None where both are blank: the complete file.

    Raises:
        ValueError: not times.
    """
    of_start, of_end = time(start, unit), time(end, unit)
    if of_start is None and of_end is None:
        return None
    return Segment(of_start or Fraction(0), of_end, counted(unit), Fraction(slack))


def counted(unit: Unit) -> Literal["seconds", "frames"]:
    """The unit of the segments that a column in `unit` gives."""
    return "frames" if unit == "frames" else "seconds"


def literal(value: Any) -> Any:
    """The list or object in a text of JSON or a Python literal; other values as they are."""
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{", "("):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return value


def segments(value: Any, unit: Unit = "seconds") -> list[Segment]:
    """The segments of a list of pairs, a pair, or a text such as 0:05-0:10; [] for a blank value.

    Raises:
        ValueError: none of these.
    """
    found = literal(value)
    if found is None or (isinstance(found, str) and found.strip().lower() in _BLANK):
        return []
    if isinstance(found, str):
        found = _halves(found)
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, Sequence):
        raise ValueError(f"{str(value)[:_SHOWN]!r} is not a start and an end")
    pairs = (
        found
        if any(isinstance(part, Sequence | Mapping) and not isinstance(part, str) for part in found)
        else [found]
    )
    return [_pair(part, unit) for part in pairs]


def _halves(text: str) -> list[str]:
    """The two times in a text; other than two parts where it has no two."""
    splits = (mark.split(text.strip()) for mark in _BETWEEN)
    return next((parts for parts in splits if len(parts) == 2 and all(parts)), [text])


def _pair(part: Any, unit: Unit) -> Segment:
    if isinstance(part, Mapping):
        part = _of_object(part)
    if isinstance(part, str):
        part = _halves(part)
    made = None
    if isinstance(part, Sequence) and len(part) == 2:
        made = segment(part[0], part[1], unit)
    if made is None:
        raise ValueError(f"{str(part)[:_SHOWN]!r} is not a start and an end")
    return made


def _of_object(part: Mapping) -> Any:
    """The pair in an object: its start and end, or its `timestamp`, `segment` or `span`."""
    found = [
        next((value for key, value in part.items() if str(key).lower().startswith(names)), None)
        for names in (("start", "begin", "timestamp", "segment", "span"), ("end", "stop"))
    ]
    return found[0] if isinstance(found[0], list | tuple) else found
