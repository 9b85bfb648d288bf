"""Published data sets with their own tables: WebVid, Kinetics, Moments in Time."""

import re
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import caption_tables, captions
from phenaki.data.prepare.items import (
    Inventory,
    RawItem,
    Skipped,
    Split,
    class_caption,
    kind_of,
    split_named,
)
from phenaki.data.prepare.layouts import table as tables
from phenaki.data.prepare.layouts import walk

WEBVID = {"videoid", "name", "page_dir"}
KINETICS = {"youtube_id", "time_start", "time_end"}
_CUT = re.compile(r"(?P<video>.+)_(?P<start>\d{6})_\d{6}$")
_MOMENTS = ("trainingSet.csv", "validationSet.csv", "moments_categories.txt")
_MOMENTS_HEADER = ("file", "label", "positive", "negative")


def _with_columns(request: walk.Request, found: walk.Listing, columns: set[str]) -> list[Path]:
    if request.captions:
        (table,) = tables.captions_files(request, found)
        return [table] if columns <= caption_tables.columns(table) else []
    paths = [request.root / key for key in found.tables() if key.endswith(".csv")]
    return [path for path in paths if columns <= caption_tables.columns(path)]


def find_webvid(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """results_*.csv with videoid, name, page_dir; files page_dir/videoid.mp4 in any folder."""
    paths = _with_columns(request, found, WEBVID)
    if not paths:
        return None
    known: dict[str, str] = {}
    for key_of in found.media:
        path = PurePosixPath(key_of).with_suffix("")
        known.setdefault("/".join(path.parts[-2:]), key_of)
    items: dict[str, RawItem] = {}
    problems = []
    for table in paths:
        found.others.discard(_key(table, request.root))
        split: Split | None = "validation" if re.search(r"(^|_)val", table.stem) else None
        split = "train" if "train" in table.stem else split
        for line, row in caption_tables.rows(table):
            name = f"{row['page_dir'].strip()}/{row['videoid'].strip()}"
            key = known.get(name) or known.get(row["videoid"].strip())
            if key is None or key in items:
                reason = "no such file" if key is None else "second row of this file"
                problems.append(Skipped(name, f"{table.name}:{line}: {reason}"))
                continue
            if fault := caption_tables.fault(row):
                problems.append(Skipped(name, f"{table.name}:{line}: {fault}"))
            items[key] = _item(found, key, () if fault else captions.of(row["name"]), split)
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
            if fault := caption_tables.fault(row):
                problems.append(Skipped(name, f"{table.name}:{line}: {fault}"))
                continue
            key = known.get((row["youtube_id"].strip(), _second(row["time_start"])))
            if key is None or key in items:
                reason = "no such file" if key is None else "second row of this file"
                problems.append(Skipped(name, f"{table.name}:{line}: {reason}"))
                continue
            split = split_named(row.get("split") or table.stem)
            texts = class_caption(row.get("label", ""), request.template)
            items[key] = _item(found, key, texts, split)
    layout = f"Kinetics, labels from {', '.join(path.name for path in paths)}"
    return _complete(layout, found, items, problems, classes=True)


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
            if fault := caption_tables.fault(row):
                problems.append(Skipped(key, f"{name}:{line}: {fault}"))
                continue
            labels[key] = row["label"]
            if not (request.root / key).is_file() or kind_of(key) is None:
                problems.append(Skipped(key, f"{name}:{line}: no such file"))
    found.others -= set(_MOMENTS)
    items = {}
    for key in found.media:
        path = PurePosixPath(key)
        label = labels.get(key, path.parent.name)
        texts = class_caption(label, request.template)
        items[key] = _item(found, key, texts, split_named(path.parts[0]))
    layout = "Moments in Time, classes as captions"
    return _complete(layout, found, items, problems, classes=True)


def _key(table: Path, root: Path) -> str:
    return table.relative_to(root).as_posix() if table.is_relative_to(root) else ""


def _second(text: str) -> int:
    try:
        return int(float(text))
    except (OverflowError, ValueError):
        return -1


def _item(
    found: walk.Listing, key: str, texts: tuple[str, ...] = (), split: Split | None = None
) -> RawItem:
    return RawItem(key, kind_of(key) or "video", found.root / key, texts, split)


def _complete(
    layout: str, found: walk.Listing, items: dict, problems: list[Skipped], classes: bool = False
) -> Inventory:
    """Adds the files that no row names, without a caption, and reports them."""
    for key in found.media:
        if key not in items:
            items[key] = _item(found, key)
            problems.append(Skipped(key, "no row names it: no caption"))
    return walk.inventory(layout, items.values(), found, problems, classes=classes)
