"""Caption tables as rows of strings: CSV and TSV as people write them, JSONL, JSON, parquet."""

import collections
import csv
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from phenaki.data.prepare import csv_dialects
from phenaki.data.prepare.items import kind_of
from phenaki.data.prepare.text_files import encoding
from phenaki.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
FILE = (
    *("file", "file_name", "filename", "path", "video", "image"),
    *("file_path", "filepath", "video_path", "image_path"),
)
CAPTION = ("caption", "text", "title", "description", "captions", "cap", "sentence", "prompt")
OVERFLOW = "\n"  # key of the cells beyond those of the header; no column has this name
MAX_CELL = 2**26  # characters
_SHOWN = 80

Row = tuple[int, dict[str, str]]


def rows(
    path: Path, header: tuple[str, ...] | None = None, quotes: bool | None = None
) -> Iterator[Row]:
    """Yields (line, row) of a table: values are strings, column names are lower case.

    A list or an object is its JSON text. Text that is neither UTF-8 nor UTF-16 with a byte order
    mark is read as Latin-1. An object of JSON by file names is a row per file, one by names of
    columns a table.

    Args:
        header: column names of a file without a header.
        quotes: whether quotes enclose the cells of CSV or TSV; by default as `csv_dialects` finds.

    Raises:
        UserError: not readable, empty, or an open quote; names the line.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".jsonl":
            yield from _jsonl(path)
        elif suffix == ".json":
            yield from _json(path)
        else:
            yield from _csv(path, header, quotes)
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror or error}.") from None


def columns(path: Path) -> set[str]:
    """The column names of a table; empty if it is not readable."""
    try:
        first = next(rows(path), None)
    except UserError:
        return set()
    return set(first[1]) - {OVERFLOW} if first else set()


def fault(row: Mapping[str, object]) -> str | None:
    """Why the cells of a row may be those of other columns; None where they are not."""
    return "too many cells; quote the caption" if OVERFLOW in row else None


def column(names: Mapping[str, object] | set[str], wanted: tuple[str, ...]) -> str | None:
    """The first of `wanted` that is in `names`."""
    return next((name for name in wanted if name in names), None)


def _csv(path: Path, header: tuple[str, ...] | None, quotes: bool | None) -> Iterator[Row]:
    line = 1
    before = csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding=encoding(path), newline="") as file:
            delimiter, enclosed = csv_dialects.of(path, quotes)
            quoting: Any = csv.QUOTE_MINIMAL if enclosed else csv.QUOTE_NONE
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
            _, passed = csv_dialects.to_header(file)
            first = header or next(reader, None)
            if not first:
                raise UserError(f"{path}: empty; it needs a header and rows.")
            names = _distinct(name.strip().lower() for name in first)
            for cells in reader:
                line = passed + reader.line_num
                row = dict(itertools.zip_longest(names, cells[: len(names)], fillvalue=""))
                if len(cells) > len(names):
                    row[OVERFLOW] = delimiter.join(cells[len(names) :])
                if cells:
                    yield line, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV after line {line}: {error}.") from None
    finally:
        csv.field_size_limit(before)


def _distinct(names: Iterator[str]) -> list[str]:
    """Column names as pandas reads them: a second `caption` is `caption.1`."""
    found: list[str] = []
    seen: collections.Counter[str] = collections.Counter()
    for name in names:
        found.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding=encoding(path)) as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                content = json.loads(text)
            except ValueError as error:
                raise UserError(f"{path}: line {line} is not JSON: {error}.") from None
            if not isinstance(content, dict):
                raise UserError(f"{path}: line {line} must be an object, not {text[:_SHOWN]!r}.")
            yield line, _strings(content)


def _json(path: Path) -> Iterator[Row]:
    try:
        content = json.loads(path.read_text(encoding(path)))
    except ValueError as error:
        if not _is_lines(path):
            raise UserError(f"{path}: not JSON: {error}.") from None
        yield from _jsonl(path)
        return
    if isinstance(content, dict) and (by_column := _by_column(path, content)):
        content = by_column
    elif isinstance(content, dict) and content and _is_by_names(content):
        content = [
            {FILE[0]: name} | (value if isinstance(value, dict) else {CAPTION[0]: value})
            for name, value in content.items()
        ]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path}: must be an array of objects, or an object by file names.")
    yield from ((number, _strings(row)) for number, row in enumerate(content, 1))


def _by_column(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table whose columns are lists, or objects by row, as pandas writes them."""
    names = {str(name).strip().lower() for name in content}
    values = list(content.values())
    if not (column(names, FILE) and column(names, CAPTION)):
        return []
    if all(isinstance(value, list) for value in values):
        values = [dict(enumerate(value)) for value in values]
    elif not all(isinstance(value, dict) for value in values):
        return []
    for name, value in zip(content, values, strict=True):
        if value.keys() != values[0].keys():
            raise UserError(f"{path}: its column {name!r} has other rows than the first one.")
    columns = list(zip(content, values, strict=True))
    return [{name: value[row] for name, value in columns} for row in values[0]]


def _is_by_names(content: Mapping[str, Any]) -> bool:
    """Whether an object has captions by names of files, with their suffixes or all of one form."""
    if all(map(kind_of, content)):
        return True
    values = [*content.values()]
    if all(isinstance(value, dict) for value in values):
        return all(column(value, CAPTION) for value in values)
    texts = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
    return all(isinstance(text, str) for text in texts)


def _is_lines(path: Path) -> bool:
    """Whether the first line of a file is an object: `Dataset.to_json` writes one per line."""
    with path.open(encoding=encoding(path)) as file:
        try:
            return isinstance(json.loads(file.readline()), dict)
        except ValueError:
            return False


def _parquet(path: Path) -> Iterator[Row]:
    for line, row in enumerate(batches(path), 1):
        yield line, _strings(row)


def _strings(row: Mapping) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in row.items():
        key = str(name).strip().lower()
        if isinstance(value, bytes):  # media, or a text that was stored so
            value = _text(value) if key in (*FILE, *CAPTION) else None
            if value is None:
                continue
        found.setdefault(key, _cell(value))
    return found


def _text(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN is a missing value
        return ""
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def batches(path: Path, size: int = 16) -> Iterator[dict]:
    """Yields the rows of a parquet file as Python values, with `size` rows in memory.

    Raises:
        UserError: not parquet.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(size):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as parquet: {str(error)[:_SHOWN]}.") from None
