"""The dialect of a CSV or TSV file: its delimiter, whether quotes enclose cells."""

import csv
import re
from pathlib import Path
from typing import TextIO

from phenaki.data.prepare.text_files import encoding

DELIMITERS = (",", ";", "\t", "|")
_ENCLOSED = re.compile(r'"(?:[^"]|"")*"')
_SAYS = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


def of(path: Path, quotes: bool | None = None) -> tuple[str, bool]:
    """(delimiter, whether quotes enclose cells) of a file.

    A .csv whose header has no comma outside quotes is separated by semicolons, tabs or bars, or by
    what Excel's line `sep=;` says. A .tsv is often written by joining cells with tabs: `has_quotes`
    decides whether its quotes enclose cells.

    Args:
        quotes: overrides that decision.
    """
    with path.open(encoding=encoding(path), newline="") as file:
        delimiter, _ = to_header(file)
        header = _ENCLOSED.sub("", file.readline())
    known = ("\t",) if path.suffix.lower() == ".tsv" else DELIMITERS
    delimiter = delimiter or next((mark for mark in known if mark in header), known[0])
    if quotes is None:
        quotes = delimiter != "\t" or bool(has_quotes(path))
    return delimiter, quotes


def to_header(file: TextIO) -> tuple[str | None, int]:
    """Passes over blank lines and Excel's `sep=;`: (the delimiter that it says, their number)."""
    delimiter, passed = None, 0
    while True:
        place = file.tell()
        line = file.readline()
        if found := _SAYS.fullmatch(line.rstrip("\r\n")):
            delimiter = found[1]
        elif line.strip() or not line:
            file.seek(place)
            return delimiter, passed
        passed += 1


def has_quotes(path: Path) -> bool | None:
    """Whether quotes enclose the cells of a file of tab-separated cells; None without any quote.

    Writers of CSV enclose what needs it: cells with quotes, tabs, line breaks or (Excel) commas;
    some enclose every cell. A quote anywhere else is a character of the text.
    """
    enclosed = whole = True
    some = False
    with path.open(encoding=encoding(path), newline="") as file:
        to_header(file)
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
        to_header(file)
        try:
            return all(len(row) == width for row in csv.reader(file, "excel-tab", strict=True))
        except csv.Error:
            return False
