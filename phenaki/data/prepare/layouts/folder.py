"""A folder of media: captions from sidecar files or from folder names, or none."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import text_files
from phenaki.data.prepare.items import (
    Inventory,
    RawItem,
    Skipped,
    Split,
    class_caption,
    kind_of,
    words,
)
from phenaki.data.prepare.layouts import metadata, walk

CLASSES_NOTE = (
    "the folder names are read as captions; --layout=none ignores them, --layout=frames reads "
    "each folder of images as one video, --captions=FILE gives other captions"
)


@dataclasses.dataclass
class Entry:
    """What is known of a file but its media; fields as in `items.RawItem`."""

    captions: tuple[str, ...] = ()
    nsfw: str | None = None
    split: Split | None = None
    about: metadata.Metadata = metadata.Metadata()


def find_sidecars(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """clip.txt, clip.json or clip.mp4.txt next to clip.mp4; of several, all flags are used."""
    sides = Sides(found.others)
    if not any(sides.of(key) for key in found.media):
        return None
    entries, used = {}, set()
    problems: list[Skipped] = []
    for key in found.media:
        texts = sides.of(key)
        read = read_sides(key, texts, request.root, problems)
        used.update(texts)
        entries[key] = Entry(read.captions, read.nsfw, found.split_of(key), read)
    found.others -= used
    return inventory("a .txt or .json next to each file", found, entries, problems)


class Sides:
    """The texts among files, by what they lie next to; suffixes in any case, as in A.JPG, A.TXT."""

    def __init__(self, others: Iterable[str]):
        self._by_stem: dict[tuple[str, str], str] = {}
        for key in sorted(others):  # of A.TXT and A.txt the last
            stem, _, suffix = key.rpartition(".")
            self._by_stem[stem, suffix.lower()] = key

    def of(self, key: str) -> list[str]:
        """Those next to a file, with or without its suffix."""
        return self.named(PurePosixPath(key).with_suffix("").as_posix(), key)

    def named(self, *stems: str) -> list[str]:
        """Those of these names and a suffix."""
        names = ((stem, suffix) for stem in dict.fromkeys(stems) for suffix in metadata.TEXTS)
        return [self._by_stem[name] for name in names if name in self._by_stem]


def read_sides(
    key: str, sides: Iterable[str], root: Path, problems: list[Skipped]
) -> metadata.Metadata:
    """What the texts `sides` say of an item; adds what is wrong with them to `problems`."""
    texts = []
    for side in sides:
        try:
            text = text_files.read(root / side)
            texts.append(metadata.read(text, side.rpartition(".")[2].lower()))
        except (OSError, ValueError) as error:
            problems.append(Skipped(side, f"unreadable caption: {error}"))
    read = metadata.joined(texts)
    if texts and not read.captions:
        problems.append(Skipped(key, "the text next to it has no caption"))
    return read


def find_folders(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Folder names as captions, if there are several and no media next to them.

    Folders of splits are no classes: the class folders may lie below them.
    """
    classes = {_below_splits(key, found) for key in found.media}
    if PurePosixPath() in classes or len(classes) < 2:
        return None
    return find_class_folders(request, found)


def _below_splits(key: str, found: walk.Listing) -> PurePosixPath:
    """The folder of a file without the folders up to its split, or without that of its split."""
    parent = PurePosixPath(key).parent
    tops = [top for top in map(PurePosixPath, found.splits) if parent.is_relative_to(top)]
    if not tops:
        return parent
    return (
        parent.parent if _classes_above(found) and parent in tops else parent.relative_to(tops[0])
    )


def _classes_above(found: walk.Listing) -> bool:
    """Whether folders of splits lie in those of classes: cat/train, cat/test, dog/train."""
    return len({PurePosixPath(name).parent for name in found.splits}) > 1


def find_class_folders(request: walk.Request, found: walk.Listing) -> Inventory:
    """Folder names as captions."""
    entries, changed = {}, {}
    for key in found.media:
        name = _class(key, found)
        entries[key] = Entry(class_caption(name, request.template), split=found.split_of(key))
        if words(name) != name.replace("_", " ").replace("+", " ") and name:
            changed[name] = words(name)
    notes = [CLASSES_NOTE]
    if changed:
        name = min(changed)
        notes.append(f"class {name} is {changed[name]!r}; --captions=FILE gives other captions")
    return inventory("folder names as captions", found, entries, [], notes, classes=True)


def _class(key: str, found: walk.Listing) -> str:
    """The folder of a file, or that of its split; "" if there is none."""
    parent = PurePosixPath(key).parent
    if str(parent) in found.splits:
        return parent.parent.name if _classes_above(found) else ""
    return parent.name


def find_none(request: walk.Request, found: walk.Listing) -> Inventory:
    """Media without captions."""
    del request
    return inventory("no captions", found, {}, [])


def inventory(
    layout: str,
    found: walk.Listing,
    entries: Mapping[str, Entry],
    problems: list[Skipped],
    notes: Iterable[str] = (),
    classes: bool = False,
) -> Inventory:
    """All media of a folder, with what `entries` knows of them."""
    items = []
    for key in found.media:
        if kind := kind_of(key, found.root / key):
            entry = entries.get(key) or Entry(split=found.split_of(key))
            media = entry.about.media(found.root / key, kind)
            items.append(RawItem(key, kind, media, entry.captions, entry.split, entry.nsfw))
    notes = [*found.split_notes(), *notes]
    return walk.inventory(layout, items, found, problems, notes, classes)
