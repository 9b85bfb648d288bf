"""A folder of media: captions from a table, from sidecar files, or from folder names."""

import json
import os
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import caption_tables
from phenaki.data.prepare.items import Inventory, RawItem, Skipped, escapes, kind_of, words
from phenaki.data.prepare.layouts import walk
from phenaki.errors import UserError
from phenaki.io.clean_text import clean

TABLES = tuple(
    f"{stem}{end}" for stem in ("captions", "metadata") for end in caption_tables.SUFFIXES
)
NSFW = ("nsfw", "NSFW")


def find_table(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Captions by file name from a CSV, TSV, JSONL or parquet table."""
    table = captions_file(request, found)
    if table is None:
        return None
    found.others -= {table.name} if table.parent == request.root else set()
    known = set(found.media)
    items, problems = {}, []
    if table.suffix.lower() in (".csv", ".tsv") and caption_tables.encoding(table) == "latin-1":
        problems.append(Skipped(table.name, "not UTF-8; read as Latin-1"))
    rows = 0
    for line, row in caption_tables.rows(table):
        name_in, caption_in = _columns(request, table, row)
        rows += 1
        name = row[name_in].strip()
        key = PurePosixPath(os.path.normpath(name or ".")).as_posix()
        overflow = caption_tables.OVERFLOW in row
        reason: str | None
        if key in items:
            reason = "second row of this file; the first is used"
        elif key in known:
            caption = None if overflow else clean(row[caption_in])
            items[key] = caption, row.get("nsfw")
            reason = "too many cells; quote the caption" if overflow else None
        else:
            reason = _why_not(request.root, key)
        if reason:
            problems.append(Skipped(name, f"{table.name}:{line}: {reason}"))
    if not rows:
        raise UserError(f"{table}: no caption in this file; it needs rows of file,caption.")
    if not items:
        raise UserError(
            f"{table}: none of its {rows} rows names a video or image below {request.root} "
            f"(the first: {problems[-rows].name!r})."
        )
    return _inventory(f"captions file {table.name}", found, items, problems)


def captions_file(request: walk.Request, found: walk.Listing) -> Path | None:
    """The table of --captions, or one with a usual name at the top of the folder.

    Raises:
        UserError: the table of --captions does not exist.
    """
    if not request.captions:
        name = next((name for name in TABLES if name in found.others), None)
        return request.root / name if name else None
    for path in (Path(request.captions), request.root / request.captions):
        if path.is_file():
            return path
    raise UserError(f"{request.captions}: no such captions file.")


def _columns(request: walk.Request, table: Path, row: dict[str, str]) -> tuple[str, str]:
    wanted = request.fields
    name = caption_tables.column(
        row, (wanted["file"].lower(),) if "file" in wanted else caption_tables.FILE
    )
    names = (wanted["caption"].lower(),) if "caption" in wanted else caption_tables.CAPTION
    caption = caption_tables.column(row, names)
    if name is None or caption is None:
        header = ",".join(column for column in row if column != caption_tables.OVERFLOW)[:80]
        raise UserError(
            f"{table}: header is {header!r}; it must have file and caption "
            "(or name the columns: --fields=file=NAME,caption=NAME)."
        )
    return name, caption


def _why_not(root: Path, key: str) -> str:
    if escapes(key):
        return "its path escapes the folder"
    return "not a video or image" if os.path.lexists(root / key) else "no such file"


def find_sidecars(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """clip.txt or clip.json next to clip.mp4; of both, the flags of the .json are used, too."""
    if not any(side in found.others for key in found.media for side in _sides(key)):
        return None
    items, problems = {}, []
    for key in found.media:
        caption = nsfw = None
        for side in _sides(key):
            if side not in found.others:
                continue
            found.others.discard(side)
            try:
                text = (request.root / side).read_text(encoding="utf-8-sig")
                read, flag = of_json(text) if side.endswith(".json") else (clean(text), None)
                caption, nsfw = caption or read, nsfw or flag
            except (OSError, ValueError) as error:
                problems.append(Skipped(side, f"unreadable caption: {error}"))
        items[key] = caption, nsfw
    return _inventory("a .txt or .json next to each file", found, items, problems)


def _sides(key: str) -> tuple[str, str]:
    path = PurePosixPath(key)
    return path.with_suffix(".json").as_posix(), path.with_suffix(".txt").as_posix()


def of_json(text: str) -> tuple[str | None, str | None]:
    """(caption, NSFW flag) of an object with "caption" or "text": a string, or the first of a list.

    Raises:
        ValueError: not a JSON object.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError('not an object with "caption" or "text"')
    caption = None
    for name in ("caption", "text"):
        value = content.get(name)
        if isinstance(value, list):
            value = next((v for v in value if isinstance(v, str) and v.strip()), None)
        caption = caption or (clean(value) if isinstance(value, str) else None)
    flag = next((content[name] for name in NSFW if content.get(name) is not None), None)
    return caption, None if flag is None else str(flag)


def find_folders(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Folder names as captions, if there are several and no media next to them."""
    folders = {PurePosixPath(key).parent for key in found.media}
    if PurePosixPath() in folders or len(folders) < 2:
        return None
    return find_class_folders(request, found)


def find_class_folders(request: walk.Request, found: walk.Listing) -> Inventory:
    """Folder names as captions."""
    del request
    items = {key: (words(PurePosixPath(key).parent.name), None) for key in found.media}
    return _inventory("folder names as captions", found, items, [])


def find_none(request: walk.Request, found: walk.Listing) -> Inventory:
    """Media without captions."""
    del request
    return _inventory("no captions", found, {}, [])


def _inventory(layout: str, found: walk.Listing, items: dict, problems: list[Skipped]) -> Inventory:
    every = (
        RawItem(key, kind, found.root / key, caption, nsfw=nsfw)
        for key in found.media
        if (kind := kind_of(key, found.root / key))
        for caption, nsfw in [items.get(key, (None, None))]
    )
    return walk.inventory(layout, every, found, problems)
