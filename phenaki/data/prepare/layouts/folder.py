"""Any folder of media: captions from a table, from a file beside each, or from folders' names."""

import json
import os
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import caption_tables
from phenaki.data.prepare.items import RawItem, Skipped, Sources, clean, kind_of, leads_out, words
from phenaki.data.prepare.layouts import walk
from phenaki.errors import UserError

TABLES = tuple(
    f"{stem}{end}" for stem in ("captions", "metadata") for end in caption_tables.SUFFIXES
)
NSFW = ("nsfw", "NSFW")


def find_table(request: walk.Request, found: walk.Listing) -> Sources | None:
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
        overfull = caption_tables.OVERFULL in row
        reason: str | None
        if key in items:
            reason = "second row of this file; the first counts"
        elif key in known:
            caption = None if overfull else clean(row[caption_in])
            items[key] = caption, row.get("nsfw")
            reason = "too many cells; quote the caption" if overfull else None
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
    return _sources(f"captions file {table.name}", found, items, problems)


def captions_file(request: walk.Request, found: walk.Listing) -> Path | None:
    """The table that was named, or one of the usual name at the top.

    Raises:
        UserError: the named one does not exist.
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
    given = (wanted["caption"].lower(),) if "caption" in wanted else caption_tables.CAPTION
    caption = caption_tables.column(row, given)
    if name is None or caption is None:
        header = ",".join(column for column in row if column != caption_tables.OVERFULL)[:80]
        raise UserError(
            f"{table}: header is {header!r}; it must have file and caption "
            "(or say which: --fields=file=NAME,caption=NAME)."
        )
    return name, caption


def _why_not(root: Path, key: str) -> str:
    if leads_out(key):
        return "leads out of the folder"
    return "not a video or image" if os.path.lexists(root / key) else "no such file"


def find_sidecars(request: walk.Request, found: walk.Listing) -> Sources | None:
    """clip.json or clip.txt beside clip.mp4; flags of the .json count beside a .txt, too."""
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
                problems.append(Skipped(side, f"no caption taken: {error}"))
        items[key] = caption, nsfw
    return _sources("a .txt or .json beside each file", found, items, problems)


def _sides(key: str) -> tuple[str, str]:
    path = PurePosixPath(key)
    return path.with_suffix(".json").as_posix(), path.with_suffix(".txt").as_posix()


def of_json(text: str) -> tuple[str | None, str | None]:
    """(caption, NSFW flag) of an object with "caption" or "text"; of a list the first that is one.

    Raises:
        ValueError: no JSON object.
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


def find_folders(request: walk.Request, found: walk.Listing) -> Sources | None:
    """The folder's name is the caption; only where all lie in one, of several."""
    folders = {PurePosixPath(key).parent for key in found.media}
    if PurePosixPath() in folders or len(folders) < 2:
        return None
    return find_class_folders(request, found)


def find_class_folders(request: walk.Request, found: walk.Listing) -> Sources:
    """The folder's name is the caption."""
    del request
    items = {key: (words(PurePosixPath(key).parent.name), None) for key in found.media}
    return _sources("folder names as captions", found, items, [])


def find_none(request: walk.Request, found: walk.Listing) -> Sources:
    """Media without captions."""
    del request
    return _sources("no captions", found, {}, [])


def _sources(said: str, found: walk.Listing, items: dict, problems: list[Skipped]) -> Sources:
    every = (
        RawItem(key, kind, found.root / key, caption, nsfw=nsfw)
        for key in found.media
        if (kind := kind_of(key))
        for caption, nsfw in [items.get(key, (None, None))]
    )
    return walk.sources(said, every, found, problems)
