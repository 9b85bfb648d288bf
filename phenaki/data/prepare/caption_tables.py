"""Caption tables as rows of strings: CSV and TSV in any usual encoding, JSONL, parquet."""

import csv
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from phenaki.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
FILE = ("file", "file_name", "filename", "path", "video", "image")
CAPTION = ("caption", "text", "title", "description")
OVERFLOW = ""  # key of the cells beyond those of the header
MAX_CELL = 2**26  # characters
_SHOWN = 80

Row = tuple[int, dict[str, str]]


def rows(path: Path, header: tuple[str, ...] | None = None) -> Iterator[Row]:
    """Yields (line, row) of a table: values are strings, column names are lower case.

    Text that is neither UTF-8 nor UTF-16 with a byte order mark is read as Latin-1.

    Args:
        header: column names of a file without a header.

    Raises:
        UserError: not readable, empty, or an open quote; names the line.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix == ".jsonl":
            yield from _jsonl(path)
        else:
            yield from _csv(path, "\t" if suffix == ".tsv" else ",", header)
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror or error}.") from None


def columns(path: Path) -> set[str]:
    """The column names of a table; empty if it is not readable."""
    try:
        first = next(rows(path), None)
    except UserError:
        return set()
    return set(first[1]) - {OVERFLOW} if first else set()


def column(names: Mapping[str, object] | set[str], wanted: tuple[str, ...]) -> str | None:
    """The first of `wanted` that is in `names`."""
    return next((name for name in wanted if name in names), None)


def encoding(path: Path) -> str:
    """The encoding of a text file, by its byte order mark or by decoding all of it."""
    with path.open("rb") as file:
        start = file.read(2)
        if start in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
    try:
        with path.open(encoding="utf-8-sig") as file:
            while file.read(2**20):
                pass
        return "utf-8-sig"
    except UnicodeDecodeError:
        return "latin-1"


def _csv(path: Path, delimiter: str, header: tuple[str, ...] | None) -> Iterator[Row]:
    line = 1
    before = csv.field_size_limit(MAX_CELL)
    try:
        with path.open(encoding=encoding(path), newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            first = header or next(reader, None)
            if not first:
                raise UserError(f"{path}: empty; it needs a header and rows.")
            names = [name.strip().lower() for name in first]
            for cells in reader:
                line = reader.line_num
                row = dict(itertools.zip_longest(names, cells[: len(names)], fillvalue=""))
                if len(cells) > len(names):
                    row[OVERFLOW] = delimiter.join(cells[len(names) :])
                if cells:
                    yield line, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV after line {line}: {error}.") from None
    finally:
        csv.field_size_limit(before)


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


def _parquet(path: Path) -> Iterator[Row]:
    for line, row in enumerate(batches(path), 1):
        yield line, _strings(row)


def _strings(row: Mapping) -> dict[str, str]:
    return {
        str(name).lower(): "" if value is None else str(value)
        for name, value in row.items()
        if not isinstance(value, bytes)
    }


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
