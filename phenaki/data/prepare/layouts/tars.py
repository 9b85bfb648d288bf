"""Tars of img2dataset, video2dataset and WebDataset: key.jpg or key.mp4, key.txt, key.json.

Members are read in place: nothing is unpacked, whatever their names are.
"""

import collections
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from phenaki.data.prepare import text_files
from phenaki.data.prepare.items import (
    FileSlice,
    Inventory,
    RawItem,
    Skipped,
    Split,
    escapes,
    is_utf8,
    kind_of,
)
from phenaki.data.prepare.layouts import metadata, walk

_NAME = re.compile(r"(?P<key>(?:.*/)?[^/.][^/]*)\.(?P<suffix>[^/.]+)$", re.DOTALL)
TEXT_NAMES = {"caption", "captions", "text", "txt", "prompt", "json", "metadata", "meta"}
Parts = dict[str, FileSlice]  # the files of a name by suffix
MAX_TEXT = 2**26  # bytes of a .txt or .json


def find(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Each tar is a unit; the .parquet and _stats.json next to it are not needed."""
    keys = found.named("*.tar")
    if not keys:
        return None
    layout = "tars of WebDataset, img2dataset or video2dataset"
    return walk.containers(layout, keys, found, members)


def members(path: Path, key: str, split: Split | None = None) -> Iterator[RawItem | Skipped]:
    """The media of a tar in its order, each with the captions and flags of its .txt and .json.

    Files whose names differ after the last dot belong together. A file without a text of its own
    belongs to the sample that it extends: the image in a.mask.png is the second of a.jpg, and the
    caption in a.txt or a.caption.txt is that of a.image.jpg. `split` is that of the tar.
    """
    groups: dict[str, Parts] = collections.defaultdict(dict)
    try:
        for found in _slices(path, key):
            if isinstance(found, Skipped):
                yield found
                continue
            name, suffix, part = found
            if suffix in groups[name]:
                yield Skipped(f"{key}/{name}.{suffix}", "second member of this name")
            else:
                groups[name][suffix] = part
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        yield Skipped(
            key, f"tar not readable after {sum(map(len, groups.values()))} files: {reason}"
        )
    yield from _samples(groups, key, split)


def _samples(
    groups: dict[str, Parts], key: str, split: Split | None
) -> Iterator[RawItem | Skipped]:
    """The items of a tar's files; every other file is named."""
    taken: set[str] = set()  # names whose text belongs to another
    unread: collections.Counter[str] = collections.Counter()
    described = _described(groups)
    for name, parts in groups.items():
        if not _media(parts):
            continue
        owner = None if _has_text(parts) else _owner(name, groups, described)
        if owner is not None and (_media(groups[owner]) or owner in taken):
            for suffix in parts:
                yield Skipped(f"{key}/{name}.{suffix}", f"second image or video of {owner}")
            continue
        texts = parts
        if owner is not None:
            taken.add(owner)
            texts = groups[owner]
        yield from _items(f"{key}/{name}", parts, texts, split)
        used = parts if owner is None else {**groups[owner], **parts}
        unread.update(s for s in used if s not in metadata.TEXTS and not kind_of(f"x.{s}"))
    for name, parts in groups.items():
        if name not in taken and not _media(parts):
            yield Skipped(f"{key}/{name}", f"only .{', .'.join(parts)}: no image or video")
    for suffix, count in unread.items():
        yield Skipped(f"{key}/*.{suffix}", f"neither image, video nor caption: {count} files")


def _prefixes(name: str) -> Iterator[str]:
    """a.b.c -> a.b, a: the names that it extends; dots of folders do not count."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return (f"{folder}{slash}{'.'.join(parts[:count])}" for count in range(len(parts) - 1, 0, -1))


def _described(groups: dict[str, Parts]) -> dict[str, str]:
    """a -> a.caption, for texts that name what they are: a.caption.txt, a.metadata.json."""
    texts = (n for n, p in groups.items() if n.rpartition(".")[2] in TEXT_NAMES and _has_text(p))
    found: dict[str, str] = {}
    for name in texts:
        if not _media(groups[name]):
            found.setdefault(name.rpartition(".")[0], name)
    return found


def _owner(name: str, groups: dict[str, Parts], described: dict[str, str]) -> str | None:
    """The name whose text is that of `name`: a.caption or a for a.image, a.caption for a."""
    for longer in (name, *_prefixes(name)):
        if longer in described:
            return described[longer]
        if longer != name and longer in groups:
            return longer
    return None


def _has_text(parts: Parts) -> bool:
    return any(suffix in parts for suffix in metadata.TEXTS)


def _media(parts: Parts) -> bool:
    return any(kind_of(f"x.{suffix}") for suffix in parts)


def _slices(path: Path, key: str) -> Iterator[Skipped | tuple[str, str, FileSlice]]:
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            name = f"{key}/{member.name}"
            if member.isdir():
                continue
            split = _NAME.match(member.name)
            if not is_utf8(member.name):
                yield Skipped(ascii(name), "a name that is not UTF-8")
            elif escapes(member.name):
                yield Skipped(name, "its path escapes the tar")
            elif not member.isreg():
                yield Skipped(name, "a link or device, not a file")
            elif member.sparse is not None:
                yield Skipped(name, "a sparse file")
            elif split is None:
                yield Skipped(name, "a hidden file, or a name without a suffix")
            elif not 0 <= member.size <= size - member.offset_data:
                yield Skipped(name, "truncated: the tar ends before it")
            else:
                part = FileSlice(path, member.offset_data, member.size)
                yield split["key"], split["suffix"].lower(), part


def _items(
    name: str, parts: Parts, texts: Parts, split: Split | None
) -> Iterator[RawItem | Skipped]:
    """The media among the files of a sample."""
    for suffix, part in parts.items():
        kind = kind_of(f"x.{suffix}")
        if kind is None:
            continue
        read = []
        for of_text in [one for one in metadata.TEXTS if one in texts]:
            try:
                read.append(metadata.read(_text(texts[of_text]), of_text))
            except ValueError as error:
                yield Skipped(f"{name}.{suffix} (.{of_text})", f"unreadable caption: {error}")
        if not set(metadata.TEXTS) & set(texts):
            yield Skipped(f"{name}.{suffix}", "no .txt or .json: no caption")
        about = metadata.joined(read)
        media = about.media(part, kind)
        yield RawItem(f"{name}.{suffix}", kind, media, about.captions, split, about.nsfw)


def _text(part: FileSlice) -> str:
    if part.size > MAX_TEXT:
        raise ValueError(f"{part.size} bytes of text")
    with part.path.open("rb") as file:
        file.seek(part.offset)
        content = file.read(part.size)
    return text_files.decoded(content)
