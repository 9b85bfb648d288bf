"""Tars of img2dataset, video2dataset and WebDataset: key.jpg or key.mp4, key.txt, key.json.

Members are read in place: nothing is unpacked, whatever their names are.
"""

import collections
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from phenaki.data.prepare.items import (
    FileSlice,
    Inventory,
    MediaKind,
    RawItem,
    Skipped,
    escapes,
    is_utf8,
    kind_of,
    one_caption,
)
from phenaki.data.prepare.layouts import folder, walk
from phenaki.io.clean_text import clean

_NAME = re.compile(r"(?P<key>(?:.*/)?[^/.]+)\.(?P<suffix>[^/]+)$")
MAX_TEXT = 2**26  # bytes of a .txt or .json


def find(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Each tar is a unit; the .parquet and _stats.json next to it are not needed."""
    keys = found.named("*.tar")
    if not keys:
        return None
    layout = "tars of WebDataset, img2dataset or video2dataset"
    return walk.containers(layout, keys, found, members)


def members(path: Path, key: str) -> Iterator[RawItem | Skipped]:
    """The media of a tar in its order, each with the caption and flags of its .txt and .json."""
    groups: dict[str, dict[str, FileSlice]] = collections.defaultdict(dict)
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
    for name, parts in groups.items():
        media = {s: k for s in parts if (k := kind_of(f"x.{s}"))}
        if not media:
            yield Skipped(f"{key}/{name}", f"only .{', .'.join(parts)}: no image or video")
        for suffix, kind in media.items():
            yield from _item(f"{key}/{name}.{suffix}", kind, parts[suffix], parts)


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
                yield Skipped(name, "a name without a suffix")
            elif not 0 <= member.size <= size - member.offset_data:
                yield Skipped(name, "truncated: the tar ends before it")
            else:
                part = FileSlice(path, member.offset_data, member.size)
                yield split["key"], split["suffix"].lower(), part


def _item(name: str, kind: MediaKind, media: FileSlice, parts: dict) -> Iterator[RawItem | Skipped]:
    caption = nsfw = None
    for suffix in ("json", "txt"):
        if suffix not in parts:
            continue
        try:
            text = _text(parts[suffix])
            read, flag = folder.of_json(text) if suffix == "json" else (clean(text), None)
            caption, nsfw = caption or read, nsfw or flag
        except ValueError as error:
            yield Skipped(f"{name} (.{suffix})", f"unreadable caption: {error}")
    if not {"txt", "json"} & set(parts):
        yield Skipped(name, "no .txt or .json: no caption")
    yield RawItem(name, kind, media, one_caption(caption), nsfw=nsfw)


def _text(part: FileSlice) -> str:
    if part.size > MAX_TEXT:
        raise ValueError(f"{part.size} bytes of text")
    with part.path.open("rb") as file:
        file.seek(part.offset)
        content = file.read(part.size)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
