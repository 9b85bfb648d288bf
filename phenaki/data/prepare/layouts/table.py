"""Media with captions from tables: at the top of the folder, or in each of its subfolders."""

import contextlib
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from os.path import lexists, normpath
from pathlib import Path, PurePosixPath
from typing import ClassVar

from phenaki.data.prepare import (
    caption_tables,
    captions,
    csv_dialects,
    segment_columns,
    text_files,
)
from phenaki.data.prepare.items import Inventory, Skipped, Split, escapes, split_named
from phenaki.data.prepare.layouts import folder, walk
from phenaki.data.prepare.layouts.named_files import Files
from phenaki.errors import UserError, one_of

STEMS = ("captions", "metadata")
TABLES = tuple(f"{stem}{end}" for stem in STEMS for end in caption_tables.SUFFIXES)
SPLIT = ("split", "subset", "partition")
MAX_GUESSED = 16  # tables of other names that are looked into
QUOTES = {"yes": True, "no": False}


def find_table(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Captions by file name from CSV, TSV, JSONL, JSON or parquet tables.

    Names are relative to the folder of the table, or to the input. All rows of a file give its
    captions; a column `split`, the folder or the name of the table gives its split.
    """
    tables = captions_files(request, found)
    if not tables:
        return None
    reader = TableReader(request, found)
    for path in tables:
        found.others.discard(key_of(path, request.root))
        reader.read(path)
    names = ", ".join(key_of(path, request.root) or path.name for path in tables)
    layout = f"captions file{'s' * (len(tables) > 1)} {names}"
    return folder.inventory(layout, found, reader.entries, reader.problems, reader.notes)


def captions_files(request: walk.Request, found: walk.Listing) -> list[Path]:
    """The table of --captions; or those with a usual name, one a folder; or others that fit.

    Raises:
        UserError: the table of --captions does not exist.
    """
    if request.captions:
        for path in (Path(request.captions), request.root / request.captions):
            if path.is_file():
                return [path]
        raise UserError(f"{request.captions}: no such captions file.")
    usual: dict[PurePosixPath, tuple[int, str]] = {}
    for key in found.tables():
        name = PurePosixPath(key).name.lower()
        if name in TABLES:
            place = PurePosixPath(key).parent
            usual[place] = min((TABLES.index(name), key), usual.get(place, (len(TABLES), "")))
    if usual:
        return [request.root / key for _, (_, key) in sorted(usual.items())]
    return _guessed(request, found)


def _guessed(request: walk.Request, found: walk.Listing) -> list[Path]:
    """Tables of other names with a column of files and one of captions, as train.csv has them."""
    files = Files(found)
    tables = []
    candidates = [key for key in found.tables() if not key.endswith(".json")]
    for key in candidates if len(candidates) <= MAX_GUESSED else ():
        path = request.root / key
        with contextlib.suppress(UserError):
            rows = (row for _, row in caption_tables.rows(path))
            first = next(rows, {})
            name, _ = columns(request, path, first)
            every = itertools.chain([first], rows)  # videos that are gone may come first
            if any(files.find(row.get(name, ""), _place(key)) for row in every):
                tables.append(path)
    return tables


def columns(request: walk.Request, table: Path, row: dict[str, str]) -> tuple[str, list[str]]:
    """The column of the file and those of the captions: caption, caption_1, caption_2, ...

    Raises:
        UserError: no such column.
    """
    wanted = request.fields
    name = caption_tables.column(
        row, (wanted["file"].lower(),) if "file" in wanted else caption_tables.FILE
    )
    names = (wanted["caption"].lower(),) if "caption" in wanted else caption_tables.CAPTION
    found = caption_tables.column(row, names)
    several = [found] if found else []
    if "caption" not in wanted:
        stem = found or caption_tables.CAPTION[0]
        several += [one for one in row if re.fullmatch(rf"{re.escape(stem)}[ ._]?[0-9]+", one)]
    if name is None or not several:
        header = ",".join(column for column in row if column != caption_tables.OVERFLOW)[:80]
        raise UserError(
            f"{table}: header is {header!r}; it must have file and caption "
            "(or name the columns: --fields=file=NAME,caption=NAME)."
        )
    return name, several


@dataclasses.dataclass
class TableReader:
    """Collects the rows of tables by file."""

    wanted: ClassVar[str] = "video or image"
    times_hint: ClassVar[str] = "--fields=start=NAME,end=NAME or segment=NAME does"

    request: walk.Request
    found: walk.Listing
    entries: dict[str, folder.Entry] = dataclasses.field(default_factory=dict)
    problems: list[Skipped] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def read(self, table: Path) -> None:
        """Adds the rows of a table.

        Raises:
            UserError: it is empty, has other columns, or names no file of the input.
        """
        place = _place(key_of(table, self.request.root))
        chosen: tuple[str, list[str]] | None = None
        rows = named = 0
        for line, row in caption_tables.rows(table, quotes=self._quotes(table)):
            rows += 1
            if chosen is None:
                chosen = columns(self.request, table, row)
                self._note_columns(table, chosen, row)
            name = row.get(chosen[0], "").strip()
            key = self.find(name, place, row)
            reasons = [self.why_not(name, place)] if key is None else []
            if key is not None:
                named += 1
                reasons = list(self.add(key, row, chosen[1], table))
            self.problems += [Skipped(name, f"{table.name}:{line}: {why}") for why in reasons]
        if not rows:
            raise UserError(f"{table}: no caption in this file; it needs rows of file,caption.")
        if not named:
            first = self.problems[-rows]
            raise UserError(
                f"{table}: none of its {rows} rows names a {self.wanted} below "
                f"{self.request.root} (the first: {first.name!r}, {first.reason})."
            )

    @functools.cached_property
    def files(self) -> Files:
        """What rows name."""
        return Files(self.found)

    def _quotes(self, table: Path) -> bool | None:
        """Whether quotes enclose the cells of a table; notes what is a guess."""
        suffix, given = table.suffix.lower(), self.request.fields.get("quotes")
        if suffix in (".csv", ".tsv") and text_files.encoding(table) == text_files.LATIN:
            self.problems.append(Skipped(table.name, "not UTF-8; read as Latin-1"))
        if given is not None:
            return one_of("--fields=quotes", given, QUOTES)
        quotes = csv_dialects.has_quotes(table) if suffix == ".tsv" else None
        if quotes is not None:
            what, other = ("enclose cells", "no") if quotes else ("are part of the captions", "yes")
            self.notes.append(f"{table.name}: its quotes {what}; --fields=quotes={other} differs")
        return quotes

    def _note_columns(self, table: Path, columns: tuple[str, list[str]], row: dict) -> None:
        """Notes that a table of another name is taken, and a choice among several columns."""
        name, several = columns
        if times := [one for one in self.unread_times(row) if one not in (name, *several)]:
            self.notes.append(
                f"{table.name}: {', '.join(times)} not read as times of segments; {self.times_hint}"
            )
        if not self.request.captions and table.name.lower() not in TABLES:
            self.notes.append(
                f"{table.name}: captions from {', '.join(several)}, files from {name}; "
                "--captions=FILE takes another table, --layout=none none"
            )
        chosen = {name, *several}
        of = {"file": caption_tables.FILE, "caption": caption_tables.CAPTION}
        names = [n for what in of if what not in self.request.fields for n in of[what]]
        if others := [column for column in names if column in row and column not in chosen]:
            self.notes.append(
                f"{table.name}: captions from {', '.join(several)}, files from {name}, not from "
                f"{', '.join(others)}; --fields=file=NAME,caption=NAME chooses"
            )

    def unread_times(self, row: Mapping[str, str]) -> list[str]:
        """The columns that may hold times of segments, and are not read as such."""
        return segment_columns.unread(row)

    def find(self, name: str, place: PurePosixPath, row: Mapping[str, str]) -> str | None:
        """The key of a name in a row of a table of the folder `place`, or of that of its split."""
        found = self.files.find(name, place)
        parts = filter(None, (row.get(split, "").strip() for split in SPLIT))
        below = (self.files.find(name, place / part) for part in parts)
        return found or next(filter(None, below), None)

    def add(self, key: str, row: dict[str, str], columns: list[str], table: Path) -> Iterator[str]:
        """Adds a row of a file; yields what is wrong with it."""
        again = key in self.entries
        entry = self.entries.setdefault(key, folder.Entry())
        cells = [row.get(column, "") for column in columns]
        texts = [text for cell in cells for text in captions.of(cell)]
        if fault := caption_tables.fault(row):
            texts = []
            yield fault
        elif not texts and any(map(str.strip, cells)):
            yield "its caption is neither a text nor a list of texts"
        elif not texts and not any(column in row for column in columns):
            yield f"it has no {' or '.join(columns)}: no caption"
        new = tuple(text for text in dict.fromkeys(texts) if text not in entry.captions)
        if again and not new:
            yield "second row of this file, with no other caption"
        entry.captions += new
        entry.nsfw = entry.nsfw or captions.flag_of(row)
        entry.split = entry.split or self.split(key, row, table)

    def split(self, key: str, row: dict[str, str], table: Path) -> Split | None:
        """The split of a row: its own, that of the folder, or that of a table, as train.csv."""
        for name in SPLIT:
            if own := split_named(row.get(name)):
                return own
        words = re.split(r"[^a-z]+", table.stem.lower())
        return self.found.split_of(key) or next(filter(None, map(split_named, words)), None)

    def why_not(self, name: str, place: PurePosixPath) -> str:
        """Why a row names nothing."""
        inside = [p for top in (place, PurePosixPath()) if not escapes(p := normpath(top / name))]
        if not inside:
            return "its path escapes the folder"
        if self.files.is_several(name):
            return walk.SEVERAL
        exists = any(lexists(self.found.root / path) for path in inside)
        return "not a video or image" if exists else walk.NO_FILE


def key_of(table: Path, root: Path) -> str:
    return table.relative_to(root).as_posix() if table.is_relative_to(root) else ""


def _place(key: str) -> PurePosixPath:
    return PurePosixPath(key).parent
