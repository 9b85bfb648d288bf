"""Listing of an input folder, and its division into work units."""

import dataclasses
import functools
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath

from phenaki.data.prepare.caption_tables import SUFFIXES
from phenaki.data.prepare.items import (
    Inventory,
    RawItem,
    Skipped,
    Split,
    WorkUnit,
    is_utf8,
    kind_of,
    split_named,
)

MIN_UNITS = 64  # keeps processes busy, and a killed run loses little
MAX_FILES = 128  # of a unit: of millions of files, some ten thousand units
SPLITS_NOTE = "splits from {}; --nosource_splits assigns files by --validation"
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


@dataclasses.dataclass(frozen=True)
class Request:
    """Arguments of a reader: the input and --captions, --fields, --source_fps, --caption_template.

    `template` has the name of a class in place of its braces.
    """

    root: Path
    captions: str | None = None
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source_fps: float | None = None
    template: str = "{}"


NO_FILE = "no such file"
SEVERAL = "files of this name in several folders"


@dataclasses.dataclass
class Listing:
    """The keys of the files below a folder, without hidden files and links to outside.

    `problems` names what cannot be read, `hidden` what is not looked at.
    """

    root: Path
    media: list[str]
    others: set[str]
    problems: list[Skipped] = dataclasses.field(default_factory=list)
    hidden: list[Skipped] = dataclasses.field(default_factory=list)

    def tables(self) -> list[str]:
        """Keys of the files that may be tables; those at the top come first."""
        found = [key for key in self.others if PurePosixPath(key).suffix.lower() in SUFFIXES]
        return sorted(found, key=lambda key: (key.count("/"), key))

    def named(self, *patterns: str) -> list[str]:
        """Keys of other files whose names match one of the patterns."""
        paths = ((PurePosixPath(key), key) for key in sorted(self.others))
        return [key for path, key in paths if any(path.match(pattern) for pattern in patterns)]

    @functools.cached_property
    def splits(self) -> dict[str, Split]:
        """The folders that divide the media into splits, such as train and test."""
        return split_folders(self.media)

    def split_of(self, key: str) -> Split | None:
        """The split of the folder that a file lies in."""
        if not self.splits:
            return None
        folders = map(str, PurePosixPath(key).parents)
        return next((self.splits[name] for name in folders if name in self.splits), None)

    def split_notes(self) -> list[str]:
        """A line if folders are read as splits."""
        names = ", ".join(sorted(self.splits))
        return [SPLITS_NOTE.format(f"the folders {names}")] if self.splits else []

    def unused(self) -> Iterator[Skipped]:
        """Every file that is not an item of a layout, with the reason."""
        for key in sorted(self.others):
            yield Skipped(key, _why_unused(key))
        yield from self.hidden


def natural(name: str) -> list[tuple[int, int, str]]:
    """Key of the order in which frame9 comes before frame10."""
    parts = re.split(r"([0-9]+)", name)
    return [(1, int(p), p) if i % 2 else (0, 0, p) for i, p in enumerate(parts)]


def split_folders(keys: Sequence[str]) -> dict[str, Split]:
    """Folder -> split, of the topmost folders that divide files into splits.

    All files must lie in such folders, or some of them in training and some in validation folders:
    a class may also be called train. Below several folders, as cat/train and dog/train, all files
    must, in both.
    """
    folders = {PurePosixPath(key).parent.parts for key in keys}
    depth, several = 1, False
    while True:
        deep = [parts for parts in folders if len(parts) >= depth]
        tops = {parts[:depth] for parts in deep}
        splits = _splits_of({top[-1] for top in tops})
        named = {"/".join(top): splits[top[-1]] for top in tops if top[-1] in splits}
        alone = len(deep) == len(folders) and len(named) == len(tops)
        both = len(set(named.values())) == 2
        if named and (alone and both if several else alone or both):
            return named
        if len(deep) < len(folders) or not deep:
            return {}
        several |= len(tops) != 1
        depth += 1


def _splits_of(names: set[str]) -> dict[str, Split]:
    """Those of the names that are splits: train, or training_set and test_set together."""
    found = {name: split for name in names if (split := split_named(name))}
    if found or len(names) < 2:
        return found
    rests, longer = set(), {}
    for name in names:
        words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
        of_words = [split for word in words if (split := split_named(word))]
        rests.add(tuple(word for word in words if not split_named(word)))
        if len(of_words) == 1:
            longer[name] = of_words[0]
    together = len(longer) == len(names) and len(rests) == 1
    return longer if together and len(set(longer.values())) == 2 else {}


def split_of_container(key: str) -> Split | None:
    """The split in the name of a container: train-00000-of-00001.parquet, val/0000.tar."""
    path = PurePosixPath(key)
    named = [*re.split(r"[^a-z]+", path.name.split(".")[0].lower()), *reversed(path.parent.parts)]
    return next(filter(None, map(split_named, named)), None)


def _why_unused(key: str) -> str:
    if key.lower().endswith(ARCHIVES):
        return "an archive: unpack it first"
    if kind_of(key):
        return "no item of this layout: not read"
    return "neither video nor image, and not used for captions"


def listing(root: Path) -> Listing:
    """Walks the folder once."""
    found = Listing(root, [], set())
    inside = (root.resolve(), *_blobs(root))

    def unreadable(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        reason = f"a folder that is not readable: {error.strerror}"
        found.problems.append(Skipped(_named(name), reason))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        kept = []
        for name in sorted(folders):
            path = Path(folder, name)
            key = _named(path.relative_to(root).as_posix())
            if name.startswith("."):
                found.hidden.append(Skipped(key, "a hidden folder"))
            elif name == "blobs" and "snapshots" in folders:
                reason = "files of the Hub's cache, which are read by their names in snapshots"
                found.hidden.append(Skipped(key, reason))
            elif path.is_symlink():
                reason = "a link to a folder, which is not followed: give that folder as --input"
                found.problems.append(Skipped(key, reason))
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(names):
            _add(found, Path(folder, name), inside)
    found.media.sort()
    return found


def _add(found: Listing, path: Path, inside: Sequence[Path]) -> None:
    """Adds a file to the listing."""
    key = path.relative_to(found.root).as_posix()
    if path.name.startswith("."):
        found.hidden.append(Skipped(_named(key), "a hidden file"))
    elif not is_utf8(key):
        found.problems.append(Skipped(ascii(key), "a name that is not UTF-8"))
    elif reason := _why_not(path, inside):
        found.problems.append(Skipped(key, reason))
    elif kind_of(key, path):
        found.media.append(key)
    else:
        found.others.add(key)


def _named(key: str) -> str:
    return key if is_utf8(key) else ascii(key)


def _why_not(path: Path, inside: Sequence[Path]) -> str | None:
    """Why a file cannot be read: links lead to files below `inside` only."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return None
    if not stat.S_ISLNK(mode):
        return "not a regular file"
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError:
        target = path.resolve()
    except (OSError, RuntimeError):  # before Python 3.13 the second
        return "a link that cannot be followed, as one to itself"
    if not any(map(target.is_relative_to, inside)):
        return "a link to outside the folder"
    return None if target.is_file() else "a link to a file that does not exist"


def _blobs(root: Path) -> Iterator[Path]:
    """Where the links of a snapshot of Hugging Face's cache lead: NAME/snapshots/REVISION/..."""
    resolved = root.resolve()
    for path in (resolved, *resolved.parents):
        if path.parent.name == "snapshots" and (blobs := path.parents[1] / "blobs").is_dir():
            yield blobs.resolve()


def inventory(
    layout: str,
    items: Iterable[RawItem],
    found: Listing,
    problems: list[Skipped],
    notes: Iterable[str] = (),
    classes: bool = False,
) -> Inventory:
    """The items of a folder in units of a few files; a unit has all segments of its files."""
    every = sorted(items, key=_order)
    size = max(1, min(MAX_FILES, len(every) // MIN_UNITS))
    parts: list[list[RawItem]] = []
    for item in every:
        if parts and (len(parts[-1]) < size or item.source == parts[-1][-1].source):
            parts[-1].append(item)
        else:
            parts.append([item])
    return Inventory(
        layout,
        tuple(WorkUnit(part[0].key, tuple(part)) for part in parts),
        tuple(found.problems + problems),
        len(found.others),
        tuple(found.unused()),
        tuple(notes),
        classes,
    )


def _order(item: RawItem) -> tuple[str, Fraction, str]:
    return item.source, item.segment.start if item.segment else Fraction(-1), item.key


def containers(
    layout: str,
    keys: list[str],
    found: Listing,
    reader: Callable[..., Iterator[RawItem | Skipped]],
    notes: Iterable[str] = (),
    classes: bool = False,
) -> Inventory:
    """Each container is a unit, which `reader`(path, key, split=...) lists.

    Other media are reported.
    """
    found.others -= set(keys)
    units, splits = [], set()
    for key in keys:
        path, split = found.root / key, split_of_container(key)
        part = functools.partial(reader, path, key, split=split)
        units.append(WorkUnit(key, reader=part, container=path))
        splits.add(split)
    unread = [Skipped(key, "next to the containers: not read") for key in found.media]
    of_names = [SPLITS_NOTE.format("the names of the containers")] * (splits != {None})
    return Inventory(
        layout,
        tuple(units),
        tuple(found.problems + unread),
        len(found.others),
        tuple(found.unused()),
        (*of_names, *notes),
        classes,
    )
