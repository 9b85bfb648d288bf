"""Listing of an input folder, and its division into work units."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from phenaki.data.prepare.caption_tables import SUFFIXES
from phenaki.data.prepare.items import Inventory, RawItem, Skipped, WorkUnit, is_utf8, kind_of

MIN_UNITS = 64  # keeps processes busy, and a killed run loses little
MAX_FILES = 128  # of a unit: of millions of files, some ten thousand units


@dataclasses.dataclass(frozen=True)
class Request:
    """Arguments of a reader: the input, --captions, --fields and --source_fps."""

    root: Path
    captions: str | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source_fps: float | None = None


@dataclasses.dataclass
class Listing:
    """The keys of the files below a folder, without hidden files and links to outside."""

    root: Path
    media: list[str]
    others: set[str]
    problems: list[Skipped]

    def tables(self) -> list[str]:
        """Keys of the files that may be tables; those at the top come first."""
        found = [key for key in self.others if PurePosixPath(key).suffix.lower() in SUFFIXES]
        return sorted(found, key=lambda key: (key.count("/"), key))

    def named(self, *patterns: str) -> list[str]:
        """Keys of other files whose names match one of the patterns."""
        paths = ((PurePosixPath(key), key) for key in sorted(self.others))
        return [key for path, key in paths if any(path.match(pattern) for pattern in patterns)]


def listing(root: Path) -> Listing:
    """Walks the folder once."""
    media, others, problems = [], set(), []
    inside = root.resolve()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            key = path.relative_to(root).as_posix()
            if name.startswith("."):
                continue
            if not is_utf8(key):
                problems.append(Skipped(ascii(key), "a name that is not UTF-8"))
            elif path.is_symlink() and not path.resolve().is_relative_to(inside):
                problems.append(Skipped(key, "a link to outside the folder"))
            elif kind_of(key, path):
                media.append(key)
            else:
                others.add(key)
    return Listing(root, sorted(media), others, problems)


def inventory(
    layout: str, items: Iterable[RawItem], found: Listing, problems: list[Skipped]
) -> Inventory:
    """The items of a folder in units of a few files."""
    every = sorted(items, key=lambda item: item.key)
    size = max(1, min(MAX_FILES, len(every) // MIN_UNITS))
    units = (tuple(every[first : first + size]) for first in range(0, len(every), size))
    return Inventory(
        layout,
        tuple(WorkUnit(part[0].key, part) for part in units),
        tuple(found.problems + problems),
        len(found.others),
    )


def containers(
    layout: str, keys: list[str], found: Listing, reader: Callable[..., Iterator[RawItem | Skipped]]
) -> Inventory:
    """Each container is a unit, which `reader`(path, key) lists; other media are reported."""
    found.others -= set(keys)
    units = []
    for key in keys:
        path = found.root / key
        part = functools.partial(reader, path, key)
        units.append(WorkUnit(key, reader=part, container=path))
    unread = [Skipped(key, "next to the containers: not read") for key in found.media]
    return Inventory(layout, tuple(units), tuple(found.problems + unread), len(found.others))
