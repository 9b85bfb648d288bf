"""Detects the layout of an input and lists its items."""

from collections.abc import Callable, Mapping
from pathlib import Path

from phenaki.data.prepare.items import Inventory
from phenaki.data.prepare.layouts import (
    annotations,
    folder,
    frame_folders,
    named,
    parquets,
    segment_tables,
    stored,
    table,
    tars,
    tfds_sets,
    walk,
)
from phenaki.errors import UserError, one_of

Reader = Callable[[walk.Request, walk.Listing], Inventory | None]
# In the order in which "auto" tries them; each returns None for another layout.
READERS: dict[str, Reader] = {
    "webvid": named.find_webvid,
    "kinetics": named.find_kinetics,
    "moments": named.find_moments,
    "annotations": annotations.find,
    "davis": frame_folders.find_davis,
    "tar": tars.find,
    "tfrecord": stored.find_tfrecords,
    "parquet": parquets.find,
    "table": segment_tables.find_table,
    "sidecar": folder.find_sidecars,
    "folders": folder.find_folders,
    "none": folder.find_none,
}
CONTAINERS = ("tar", "tfrecord", "parquet")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")
# Readers of an explicit --layout; some accept more than "auto" does.
FORCED: dict[str, Reader] = READERS | {
    "csv": segment_tables.find_table,
    "folders": folder.find_class_folders,
    "frames": frame_folders.find_frames,
    **annotations.READERS,
}
LAYOUTS = ("auto", *FORCED, "tfds")
TABLES = (
    *("auto", "csv", "table", "webvid", "kinetics", "annotations", "davis", "frames"),
    *annotations.READERS,
)


def find(
    root: Path | str,
    captions: Path | str | None = None,
    layout: str = "auto",
    fields: Mapping[str, str] | None = None,
    source_fps: float | None = None,
    template: str = "{}",
) -> Inventory:
    """Lists the media below `root` with their captions.

    Args:
        root: a folder (hidden files and links to outside are ignored), one container, the folder of
            a TFDS data set, or tfds:NAME.
        captions: a table with a column for the file and one for the caption; a bare name is also
            looked up in `root`.
        layout: one of `LAYOUTS`; "auto" takes the first that fits.
        fields: names of the columns, {"file": ..., "caption": ...}, or of the features of a TFDS
            set, {"media": ..., "caption": ..., "nsfw": ...}. "quotes", yes or no, tells whether
            quotes enclose the cells of a table.
        source_fps: frame rate of image sequences that do not store it.
        template: the caption of a class, with braces for its name.

    Raises:
        UserError: no such input, no media in it, or a captions file that is missing, empty or
            matches nothing.
    """
    named_set = str(root).startswith(tfds_sets.PREFIX)
    root = tfds_sets.directory(str(root)) if named_set else Path(root)
    one_of("--layout", layout, dict.fromkeys(LAYOUTS))
    if captions and layout not in TABLES:
        raise UserError(f"--captions={captions} needs --layout=csv, not {layout}.")
    request = walk.Request(
        root, str(captions) if captions else None, fields or {}, source_fps, template
    )
    if named_set or layout == "tfds" or (layout == "auto" and tfds_sets.is_set(root)):
        if not tfds_sets.is_set(root):
            raise UserError(f"{root}: not a TFDS data set (no features.json, dataset_info.json).")
        return tfds_sets.find(request)
    found = _listing(root)
    if layout != "auto":
        return _forced(request, found, layout)
    for name, reader in READERS.items():
        if captions and name not in TABLES:
            continue
        if (found.media or name in CONTAINERS) and (taken := reader(request, found)):
            return taken
    raise UserError(_nothing(root, found))


def _nothing(root: Path, found: walk.Listing) -> str:
    packed = [key for key in sorted(found.others) if key.lower().endswith(PACKED)]
    hint = f" Unpack {packed[0]} first; plain .tar files are read as they are." if packed else ""
    return f"{root}: no video or image in this folder ({len(found.others)} other files).{hint}"


def _listing(root: Path) -> walk.Listing:
    if root.is_dir():
        return walk.listing(root)
    if root.is_file() and root.suffix in (".tar", ".tfrecord", ".parquet"):
        return walk.Listing(root.parent, [], {root.name})
    raise UserError(f"{root}: not a folder. Give a folder of videos and images.")


def _forced(request: walk.Request, found: walk.Listing, layout: str) -> Inventory:
    if not found.media and layout not in CONTAINERS:
        raise UserError(_nothing(request.root, found))
    taken = FORCED[layout](request, found)
    if taken is None and layout in ("csv", "table"):
        raise UserError(f"{request.root / table.TABLES[0]}: no such captions file.")
    if taken is None:
        raise UserError(f"--layout={layout}: {request.root} does not have this layout.")
    return taken
