"""Published data sets with their own tables: WebVid, Kinetics, Moments in Time."""

import re
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import caption_tables
from phenaki.data.prepare.items import (
    Inventory,
    RawItem,
    Skipped,
    Split,
    kind_of,
    one_caption,
    split_named,
    words,
)
from phenaki.data.prepare.layouts import folder, walk
from phenaki.io.clean_text import clean

WEBVID = {"videoid", "name", "page_dir"}
KINETICS = {"youtube_id", "time_start", "time_end"}
_CUT = re.compile(r"(?P<video>.+)_(?P<start>\d{6})_\d{6}$")
_MOMENTS = ("trainingSet.csv", "validationSet.csv", "moments_categories.txt")
_MOMENTS_HEADER = ("file", "label", "positive", "negative")


def _with_columns(request: walk.Request, found: walk.Listing, columns: set[str]) -> list[Path]:
    if request.captions:
        table = folder.captions_file(request, found)
        return [table] if table and columns <= caption_tables.columns(table) else []
    paths = [request.root / key for key in found.tables() if key.endswith(".csv")]
    return [path for path in paths if columns <= caption_tables.columns(path)]


def find_webvid(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """results_*.csv with videoid, name, page_dir; files [videos/]page_dir/videoid.mp4."""
    paths = _with_columns(request, found, WEBVID)
    if not paths:
        return None
    known = {PurePosixPath(key).with_suffix("").as_posix(): key for key in found.media}
    items: dict[str, RawItem] = {}
    problems = []
    for table in paths:
        found.others.discard(_key(table, request.root))
        split: Split | None = "validation" if re.search(r"(^|_)val", table.stem) else None
        split = "train" if "train" in table.stem else split
        for line, row in caption_tables.rows(table):
            name = f"{row['page_dir'].strip()}/{row['videoid'].strip()}"
            places = (f"videos/{name}", name, row["videoid"].strip())
            key = next((known[place] for place in places if place in known), None)
            if key is None or key in items:
                reason = "no such file" if key is None else "second row of this file"
                problems.append(Skipped(name, f"{table.name}:{line}: {reason}"))
                continue
            items[key] = _item(found, key, clean(row["name"]), split)
    layout = f"WebVid, captions from {', '.join(path.name for path in paths)}"
    return _complete(layout, found, items, problems)


def find_kinetics(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """CSV of label, youtube_id, time_start, time_end, split; files id_start_end.mp4 by class."""
    paths = _with_columns(request, found, KINETICS)
    if not paths:
        return None
    known: dict[tuple[str, int], str] = {}
    for name_of in found.media:
        if cut := _CUT.match(PurePosixPath(name_of).stem):
            known[cut["video"], int(cut["start"])] = name_of
    items: dict[str, RawItem] = {}
    problems = []
    for table in paths:
        found.others.discard(_key(table, request.root))
        for line, row in caption_tables.rows(table):
            name = f"{row['youtube_id'].strip()} at {row['time_start'].strip()} s"
            key = known.get((row["youtube_id"].strip(), _second(row["time_start"])))
            if key is None or key in items:
                reason = "no such file" if key is None else "second row of this file"
                problems.append(Skipped(name, f"{table.name}:{line}: {reason}"))
                continue
            split = split_named(row.get("split") or table.stem)
            items[key] = _item(found, key, words(row.get("label", "")), split)
    layout = f"Kinetics, labels from {', '.join(path.name for path in paths)}"
    return _complete(layout, found, items, problems)


def find_moments(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """training/ and validation/ with a folder per class; the tables of labels are optional."""
    tops = {PurePosixPath(key).parts[0] for key in found.media if key.count("/") == 2}
    if not {"training", "validation"} & tops or not any(map(found.others.__contains__, _MOMENTS)):
        return None
    labels, problems = {}, []
    for top, name in zip(("training", "validation"), _MOMENTS[:2], strict=True):
        if name not in found.others:
            continue
        for line, row in caption_tables.rows(request.root / name, _MOMENTS_HEADER):
            key = f"{top}/{row['file'].strip()}"
            labels[key] = row["label"]
            if not (request.root / key).is_file() or kind_of(key) is None:
                problems.append(Skipped(key, f"{name}:{line}: no such file"))
    found.others -= set(_MOMENTS)
    items = {}
    for key in found.media:
        path = PurePosixPath(key)
        label = labels.get(key, path.parent.name)
        items[key] = _item(found, key, words(label), split_named(path.parts[0]))
    return _complete("Moments in Time, classes as captions", found, items, problems)


def _key(table: Path, root: Path) -> str:
    return table.relative_to(root).as_posix() if table.is_relative_to(root) else ""


def _second(text: str) -> int:
    try:
        return int(float(text))
    except (OverflowError, ValueError):
        return -1


def _item(found: walk.Listing, key: str, caption: str | None, split: Split | None) -> RawItem:
    return RawItem(key, kind_of(key) or "video", found.root / key, one_caption(caption), split)


def _complete(layout: str, found: walk.Listing, items: dict, problems: list[Skipped]) -> Inventory:
    """Adds the files that no row names, without a caption, and reports them."""
    for key in found.media:
        if key not in items:
            items[key] = _item(found, key, None, None)
            problems.append(Skipped(key, "no row names it: no caption"))
    return walk.inventory(layout, items.values(), found, problems)
