"""Media by the ids that annotation files give them, and the items that these files describe."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from phenaki.data.prepare import segment_times
from phenaki.data.prepare.items import (
    Inventory,
    RawItem,
    Segment,
    Skipped,
    Split,
    kind_of,
    split_named,
)
from phenaki.data.prepare.layouts import walk

_MORE_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("testing", "validating", "eval", "dev"), "validation")
}


class Row(NamedTuple):
    """What an annotation file says of a video, or of a `segment` of it.

    `names` are the ids under which the file may lie; `cut` those of files that hold the segment
    alone, which come first.
    """

    names: tuple[str, ...]
    captions: tuple[str, ...] = ()
    split: Split | None = None
    segment: Segment | None = None
    cut: tuple[str, ...] = ()
    nsfw: str | None = None


class Sniff(NamedTuple):
    """The beginning of a file: its `names` are columns or keys of objects, in lower case."""

    name: str
    suffix: str
    head: str
    names: frozenset[str]


class Format(NamedTuple):
    """A published annotation format.

    `entries` yields (name, content) per video or row of a file; `rows` of (name, content, --fields)
    what it says; errors of the latter cost that entry. `also` are other files of its folder that
    are read.
    """

    title: str
    matches: Callable[[Sniff], bool]
    entries: Callable[[Path], Iterator[tuple[str, Any]]]
    rows: Callable[[str, Any, Mapping[str, str]], Iterable[Row | Skipped]]
    also: tuple[str, ...] = ()


def cut_out(row: Row, start: object, end: object, slack: int = 1) -> Row | Skipped:
    """A row with the segment between two times, or why it has none."""
    try:
        segment = segment_times.segment(start, end, slack=slack)
        if segment is None or segment.end is None:
            raise ValueError("no start and end")
        return row._replace(segment=segment)
    except ValueError as error:
        return Skipped(f"{row.names[0]}#{start}-{end}", str(error))


def split_in(name: str) -> Split | None:
    """The split that a name has as a word: val_1 -> validation; None for none, or several."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {split for word in words if (split := split_named(word) or _MORE_SPLITS.get(word))}
    return found.pop() if len(found) == 1 else None


def _with_stem(name: str) -> tuple[str, str]:
    """A name, and it without the suffix of media."""
    return name, PurePosixPath(name).stem if kind_of(name) else name


class Collector:
    """Items of the media of a folder, by file and segment; captions of equal segments are joined.

    Args:
        found: the media; videos come before images of the same name.
    """

    def __init__(self, found: walk.Listing):
        self._found = found
        self._keys = set(found.media)
        self._by_name: dict[str, str] = {}
        # Of names that several folders have: the first file of each folder, all of one kind.
        self._by_folder: dict[str, dict[PurePosixPath, str]] = {}
        for key in sorted(found.media, key=lambda key: (kind_of(key) == "image", key)):
            path = PurePosixPath(key)
            for name in (path.name, path.stem):
                first = self._by_name.setdefault(name, key)
                place = PurePosixPath(first).parent
                if path.parent != place and kind_of(key) == kind_of(first):
                    self._by_folder.setdefault(name, {place: first}).setdefault(path.parent, key)
        self._items: dict[str, RawItem] = {}
        self._missing: dict[tuple[str, str], int] = {}
        self.problems: list[Skipped] = []
        self.cuts = False

    def key(self, names: Iterable[str], table: str = "") -> str | None:
        """The key of the first name that is a file: its key, its name, or its name without suffix.

        A name with another suffix than that of the file counts, too. A name of files in several
        folders is that in or below the folder of the `table`, if it is one.
        """
        for name in names:
            if name in self._keys:
                return name
            for known in _with_stem(name):
                if known not in self._by_folder:
                    found = self._by_name.get(known)
                else:
                    found = self._below(PurePosixPath(table).parent, self._by_folder[known])
                if found is not None:
                    return found
        return None

    @staticmethod
    def _below(place: PurePosixPath, keys: Mapping[PurePosixPath, str]) -> str | None:
        inside = [key for folder, key in keys.items() if folder.is_relative_to(place)]
        return inside[0] if len(inside) == 1 else None

    def why_not(self, name: str) -> str:
        """Why a name is that of no file."""
        several = any(known in self._by_folder for known in _with_stem(name))
        return walk.SEVERAL if several else walk.NO_FILE

    def add(self, row: Row, table: str) -> None:
        """Adds the item of a row; `table` is the name of the annotation file."""
        segment = None
        key = self.key(row.cut, table)
        if key is None:
            key, segment = self.key(row.names, table), row.segment
        if key is None:
            name = (*row.names, *row.cut)[0]
            self._missing[name, table] = self._missing.get((name, table), 0) + 1
            return
        self.cuts |= segment is not None
        named = split_in(PurePosixPath(table).stem) or split_in(str(PurePosixPath(table).parent))
        split = row.split or named or self._found.split_of(key)
        full = key if segment is None else f"{key}#{segment}"
        if known := self._items.get(full):
            captions = tuple(dict.fromkeys((*known.captions, *row.captions)))
            split = known.split or split
            nsfw = known.nsfw or row.nsfw
        else:
            captions, nsfw = row.captions, row.nsfw
        path = self._found.root / key
        kind = kind_of(key, path) or "video"
        self._items[full] = RawItem(full, kind, path, captions, split, nsfw, segment)

    def __len__(self) -> int:
        return len(self._items)

    def missing(self) -> list[str]:
        """Names of rows without a file."""
        return [name for name, _ in self._missing]

    def inventory(self, layout: str, notes: Iterable[str] = ()) -> Inventory:
        """All items. Files that no row names are read without a caption, unless others are cut."""
        for (name, table), count in self._missing.items():
            more = f" ({count} segments)" if count > 1 else ""
            self.problems.append(Skipped(name, f"{table}: {self.why_not(name)}{more}"))
        named = {item.source for item in self._items.values()}
        rest = [key for key in self._found.media if key not in named]
        for key in rest:
            self.problems.append(
                Skipped(key, f"no row names it: {'not read' if self.cuts else 'no caption'}")
            )
        if not self.cuts:
            for key in rest:
                path, split = self._found.root / key, self._found.split_of(key)
                kind = kind_of(key, path) or "video"
                self._items[key] = RawItem(key, kind, path, split=split)
        notes = [*self._found.split_notes(), *notes]
        return walk.inventory(layout, self._items.values(), self._found, self.problems, notes)
