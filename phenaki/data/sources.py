"""A folder of videos and images and their captions, in the layouts people have, as one record."""

import csv
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from phenaki.errors import UserError

_VIDEO = "mp4 m4v mov mkv webm avi mpg mpeg ts m2ts mts 3gp wmv flv ogv gif y4m mxf"
_IMAGE = "jpg jpeg png webp bmp tif tiff avif ppm"
_KINDS: dict[str, Literal["video", "image"]] = {
    **dict.fromkeys((f".{suffix}" for suffix in _VIDEO.split()), "video"),
    **dict.fromkeys((f".{suffix}" for suffix in _IMAGE.split()), "image"),
}
LAYOUTS = ("auto", "csv", "sidecar", "folders", "none")
CAPTION_KEYS = ("caption", "text")
CSV_NAME = "captions.csv"


@dataclasses.dataclass(frozen=True)
class RawItem:
    """One media file. A `caption` of None means unconditional; it is never blank.

    `key` is the path below the folder with forward slashes: unique, and the same on every machine.
    """

    key: str
    kind: Literal["image", "video"]
    path: Path
    caption: str | None
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sources:
    """What a folder holds: iterate for `RawItem`s in the order of their keys.

    `layout` says in words where captions came from; `problems` are (name, reason) of captions and
    files that could not be used; `other` counts files that are neither media nor captions.
    """

    layout: str
    items: tuple[RawItem, ...]
    problems: tuple[tuple[str, str], ...]
    other: int

    def __iter__(self) -> Iterator[RawItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def find(root: Path | str, captions: Path | str | None = None, layout: str = "auto") -> Sources:
    """Lists the media below `root` with their captions.

    Args:
        root: the folder; hidden files and links that lead out of it are left aside.
        captions: a CSV (or .tsv) with columns file, caption; a bare name is also sought in `root`.
        layout: "csv", "sidecar" (clip.txt or clip.json beside clip.mp4), "folders" (the folder's
            name is the caption), "none", or "auto", which takes the first that fits in this order.

    Raises:
        UserError: no such folder, no media in it, captions file missing, empty or of no use.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise UserError(f"--layout={layout}: must be one of {', '.join(LAYOUTS)}.")
    if captions and layout not in ("auto", "csv"):
        raise UserError(f"--captions={captions} needs --layout=csv, not {layout}.")
    if not root.is_dir():
        raise UserError(f"{root}: not a folder. Give a folder of videos and images.")
    media, others, problems = _walk(root)
    if not media:
        raise UserError(f"{root}: no video or image in this folder ({len(others)} other files).")
    table = _captions_file(root, captions, layout)
    if table:
        others.discard(table.name if table.parent == root else "")
    layout = layout if layout != "auto" else _detect(table, media, others)
    found: dict[str, str | None] = {}
    if table is not None:
        found, more = _from_csv(table, media, root)
    elif layout == "sidecar":
        found, more = _from_sidecars(root, media, others)
    elif layout == "folders":
        found, more = {key: _words(PurePosixPath(key).parent.name) for key in media}, []
    else:
        more = []
    said = {
        "csv": f"captions file {table.name if table else ''}",
        "sidecar": "a .txt or .json beside each file",
        "folders": "folder names as captions",
        "none": "no captions",
    }[layout]
    items = tuple(
        RawItem(key, kind, root / key, found.get(key))
        for key in sorted(media)
        if (kind := _kind(key))
    )
    return Sources(said, items, tuple(problems + more), len(others))


def _walk(root: Path) -> tuple[list[str], set[str], list[tuple[str, str]]]:
    """(media keys, other keys, problems)."""
    media, others, problems = [], set(), []
    inside = root.resolve()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            key = path.relative_to(root).as_posix()
            if name.startswith("."):
                continue
            if _kind(key) is None:
                others.add(key)
            elif not path.resolve().is_relative_to(inside):
                problems.append((key, "a link that leads out of the folder"))
            else:
                media.append(key)
    return media, others, problems


def _kind(key: str) -> Literal["image", "video"] | None:
    return _KINDS.get(PurePosixPath(key).suffix.lower())


def _captions_file(root: Path, captions: Path | str | None, layout: str) -> Path | None:
    if captions:
        candidates = [Path(captions), root / captions]
    elif layout in ("auto", "csv"):
        candidates = [root / CSV_NAME]
    else:
        return None
    for path in candidates:
        if path.is_file():
            return path
    if captions or layout == "csv":
        raise UserError(f"{captions or root / CSV_NAME}: no such captions file.")
    return None


def _detect(table: Path | None, media: list[str], others: set[str]) -> str:
    if table:
        return "csv"
    if any(side in others for key in media for side in _sidecars(key)):
        return "sidecar"
    folders = {PurePosixPath(key).parent for key in media}
    return "folders" if PurePosixPath() not in folders and len(folders) > 1 else "none"


def _sidecars(key: str) -> tuple[str, str]:
    path = PurePosixPath(key)
    return path.with_suffix(".json").as_posix(), path.with_suffix(".txt").as_posix()


def _from_csv(table: Path, media: list[str], root: Path):
    """Captions by key from a CSV; rows that fit no file become problems."""
    known = set(media)
    captions: dict[str, str | None] = {}
    problems = []
    rows = 0
    for line, name, caption, overfull in _rows(table):
        rows += 1
        key = PurePosixPath(os.path.normpath(name or ".")).as_posix()
        at = f"{table.name}:{line}"
        if key in captions:
            problems.append((name, f"{at}: second row of this file; the first counts"))
        elif key in known:
            captions[key] = None if overfull else _clean(caption)
            if overfull:
                problems.append((name, f"{at}: too many cells; quote the caption"))
        else:
            problems.append((name, f"{at}: {_why_not(root, key)}"))
    if not rows:
        raise UserError(f"{table}: no caption in this file; it needs rows of file,caption.")
    if not captions:
        raise UserError(
            f"{table}: none of its {rows} rows names a video or image below {root} "
            f"(the first: {problems[0][0]!r})."
        )
    return captions, problems


def _why_not(root: Path, key: str) -> str:
    if PurePosixPath(key).is_absolute() or key.split("/")[0] == "..":
        return "leads out of the folder"
    return "not a video or image" if (root / key).exists() else "no such file"


def _rows(table: Path) -> Iterator[tuple[int, str, str | None, bool]]:
    """Yields (line, file, caption, whether the row has too many cells) of a CSV with a header."""
    line = 1
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=delimiter, restkey="", strict=True)
            columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            if not columns:
                raise UserError(f"{table}: empty; it needs a header and rows of file,caption.")
            if not {"file", "caption"} <= set(columns):
                given = ",".join(reader.fieldnames or ())[:80]
                raise UserError(f"{table}: header is {given!r}; it must have file and caption.")
            for row in reader:
                line = reader.line_num
                yield line, (row[columns["file"]] or "").strip(), row[columns["caption"]], "" in row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not readable as UTF-8 CSV after line {line}: {error}.") from None


def _from_sidecars(root: Path, media: list[str], others: set[str]):
    captions: dict[str, str | None] = {}
    problems = []
    for key in media:
        for side in _sidecars(key):
            if side not in others:
                continue
            others.discard(side)
            try:
                text = (root / side).read_text(encoding="utf-8-sig")
                captions[key] = _clean(_from_json(text) if side.endswith(".json") else text)
            except (OSError, ValueError) as error:
                problems.append((side, f"no caption taken: {error}"))
            if captions.get(key):
                break
    return captions, problems


def _from_json(text: str) -> str | None:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError('not an object with "caption" or "text"')
    for key in CAPTION_KEYS:
        value = content.get(key)
        if isinstance(value, list):
            value = next((v for v in value if isinstance(v, str) and v.strip()), None)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _clean(caption: str | None) -> str | None:
    """One line without blanks around; None instead of nothing."""
    return " ".join(caption.split()) or None if caption else None


def _words(folder: str) -> str | None:
    """adult+female_singing -> adult female singing."""
    return _clean(folder.replace("_", " ").replace("+", " "))
