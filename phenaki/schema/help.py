"""Fields of a config as lines of --help, and as rows of docs/config.md."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from phenaki.schema.config import KINDS
from phenaki.schema.rules import Field

# Sections whose fields are those of another one.
LIKE = {"sample.continued": "sample", "presets.NAME": "sample"}


def rows(kind: str) -> Iterator[tuple[str, Field]]:
    """(path, field) of a config of `kind`, but those of `LIKE`."""
    for path, field in KINDS[kind].items():
        if not path.startswith(tuple(f"{section}." for section in LIKE)):
            yield path, field


def lines(kind: str) -> list[str]:
    """The fields of a config of `kind`, for --help."""
    result = ["", "fields of --config:"]
    for path, field in rows(kind):
        result.append(f"  --config.{path}={field.rule.words()}")
        text = textwrap.fill(field.meaning, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
        result.append(text)
    return result


def table(kind: str, presets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A Markdown table of the fields of `kind`, with their values in `presets` by name."""
    head = ["field", "what it may be", "meaning", *(f"in {name}" for name in presets)]
    result = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for path, field in rows(kind):
        values = [_cell(_value(fields, path)) for fields in presets.values()]
        cells = [f"`{path}`", field.rule.words(), field.meaning, *values]
        result.append(f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |")
    return result


def _value(fields: Mapping[str, Any], path: str) -> Any:
    found: Any = fields
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return ""
        found = found[key]
    return found


def _cell(value: Any) -> str:
    return "" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)
