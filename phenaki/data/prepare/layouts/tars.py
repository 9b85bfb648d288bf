"""Tars of img2dataset, video2dataset and WebDataset: key.jpg or key.mp4, key.txt, key.json.

Members are read where they lie in the tar: nothing is ever unpacked, whatever their names say.
"""

import collections
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from phenaki.data.prepare.items import (
    FileSlice,
    Kind,
    RawItem,
    Skipped,
    Sources,
    clean,
    is_utf8,
    kind_of,
    leads_out,
)
from phenaki.data.prepare.layouts import folder, walk

_NAME = re.compile(r"(?P<key>(?:.*/)?[^/.]+)\.(?P<suffix>[^/]+)$")
MOST_TEXT = 2**26  # bytes of a .txt or .json


def find(request: walk.Request, found: walk.Listing) -> Sources | None:
    """Each tar is a unit; the .parquet and _stats.json beside it are not needed."""
    keys = found.named("*.tar")
    if not keys:
        return None
    said = "tars of WebDataset, img2dataset or video2dataset"
    return walk.containers(said, keys, found, members)


def members(path: Path, key: str) -> Iterator[RawItem | Skipped]:
    """The media of a tar in its order, each with the caption and flags of its .txt and .json."""
    groups: dict[str, dict[str, FileSlice]] = collections.defaultdict(dict)
    try:
        for lost_or_member in _spans(path, key):
            if isinstance(lost_or_member, Skipped):
                yield lost_or_member
                continue
            name, suffix, window = lost_or_member
            if suffix in groups[name]:
                yield Skipped(f"{key}/{name}.{suffix}", "second member of this name")
            else:
                groups[name][suffix] = window
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        yield Skipped(
            key, f"tar not readable after {sum(map(len, groups.values()))} files: {reason}"
        )
    for name, parts in groups.items():
        media = {s: k for s in parts if (k := kind_of(f"x.{s}"))}
        if not media:
            yield Skipped(f"{key}/{name}", f"only .{', .'.join(parts)}: no image or video with it")
        for suffix, kind in media.items():
            yield from _item(f"{key}/{name}.{suffix}", kind, parts[suffix], parts)


def _spans(path: Path, key: str) -> Iterator[Skipped | tuple[str, str, FileSlice]]:
    size = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
            name = f"{key}/{member.name}"
            if member.isdir():
                continue
            split = _NAME.match(member.name)
            if not is_utf8(member.name):
                yield Skipped(ascii(name), "a name that is not UTF-8")
            elif leads_out(member.name):
                yield Skipped(name, "its name leads out of the tar")
            elif not member.isreg():
                yield Skipped(name, "a link or device, not a file")
            elif member.sparse is not None:
                yield Skipped(name, "stored with holes")
            elif split is None:
                yield Skipped(name, "a name without a suffix")
            elif not 0 <= member.size <= size - member.offset_data:
                yield Skipped(name, "cut off: the tar ends before it does")
            else:
                window = FileSlice(path, member.offset_data, member.size)
                yield split["key"], split["suffix"].lower(), window


def _item(name: str, kind: Kind, media: FileSlice, parts: dict) -> Iterator[RawItem | Skipped]:
    caption = nsfw = None
    for suffix in ("json", "txt"):
        if suffix not in parts:
            continue
        try:
            text = _text(parts[suffix])
            read, flag = folder.of_json(text) if suffix == "json" else (clean(text), None)
            caption, nsfw = caption or read, nsfw or flag
        except ValueError as error:
            yield Skipped(f"{name} (.{suffix})", f"no caption taken: {error}")
    if not {"txt", "json"} & set(parts):
        yield Skipped(name, "no .txt or .json with it: no caption")
    yield RawItem(name, kind, media, caption, nsfw=nsfw)


def _text(window: FileSlice) -> str:
    if window.size > MOST_TEXT:
        raise ValueError(f"{window.size} bytes of text")
    with window.path.open("rb") as file:
        file.seek(window.offset)
        content = file.read(window.size)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
