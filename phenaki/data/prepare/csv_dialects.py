"""The dialect of a CSV or TSV file: encoding, delimiter, whether quotes enclose cells."""

import csv
import re
from pathlib import Path

DELIMITERS = (",", ";", "\t", "|")
_ENCLOSED = re.compile(r'"(?:[^"]|"")*"')


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


def of(path: Path, quotes: bool | None = None) -> tuple[str, bool]:
    """(delimiter, whether quotes enclose cells) of a file.

    A .csv whose header has no comma is separated by semicolons, tabs or bars. A .tsv is often
    written by joining cells with tabs: `has_quotes` decides whether its quotes enclose cells.

    Args:
        quotes: overrides that decision.
    """
    with path.open(encoding=encoding(path), newline="") as file:
        header = file.readline()
    known = ("\t",) if path.suffix.lower() == ".tsv" else DELIMITERS
    delimiter = next((mark for mark in known if mark in header), known[0])
    if quotes is None:
        quotes = delimiter != "\t" or bool(has_quotes(path))
    return delimiter, quotes


def has_quotes(path: Path) -> bool | None:
    """Whether quotes enclose the cells of a file of tab-separated cells; None without any quote.

    Writers of CSV enclose what needs it: cells with quotes, tabs, line breaks or (Excel) commas;
    some enclose every cell. A quote anywhere else is a character of the text.
    """
    enclosed = whole = True
    some = False
    with path.open(encoding=encoding(path), newline="") as file:
        header = file.readline().rstrip("\r\n").split("\t")
        if all(map(_ENCLOSED.fullmatch, header)):
            return True
        for line in file:
            cells = line.rstrip("\r\n").split("\t")
            whole &= len(cells) == len(header)
            for cell in cells:
                if '"' in cell:
                    some = True
                    needed = '""' in cell[1:-1] or "," in cell
                    enclosed &= needed and _ENCLOSED.fullmatch(cell) is not None
    if not some:
        return None
    return enclosed if whole else _is_csv(path, len(header))


def _is_csv(path: Path, width: int) -> bool:
    """Whether every row has `width` cells if quotes enclose them."""
    with path.open(encoding=encoding(path), newline="") as file:
        try:
            return all(len(row) == width for row in csv.reader(file, "excel-tab", strict=True))
        except csv.Error:
            return False
