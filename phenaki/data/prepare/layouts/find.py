"""Finds out how an input is laid out, says so, and lists what is in it as one record type."""

from collections.abc import Callable, Mapping
from pathlib import Path

from phenaki.data.prepare.items import Sources
from phenaki.data.prepare.layouts import folder, frame_folders, named, stored, tars, tfds_sets, walk
from phenaki.errors import UserError

Reader = Callable[[walk.Request, walk.Listing], Sources | None]
# In the order in which "auto" tries them; each answers None for what is not its own.
READERS: dict[str, Reader] = {
    "webvid": named.find_webvid,
    "kinetics": named.find_kinetics,
    "moments": named.find_moments,
    "davis": frame_folders.find_davis,
    "tar": tars.find,
    "tfrecord": stored.find_tfrecords,
    "parquet": stored.find_parquet,
    "table": folder.find_table,
    "sidecar": folder.find_sidecars,
    "folders": folder.find_folders,
    "none": folder.find_none,
}
CONTAINERS = ("tar", "tfrecord", "parquet")
# What --layout forces where "auto" would be more careful.
FORCED: dict[str, Reader] = READERS | {
    "csv": folder.find_table,
    "folders": folder.find_class_folders,
    "frames": frame_folders.find_frames,
}
LAYOUTS = ("auto", *READERS, "csv", "frames", "tfds")
TABLES = ("auto", "csv", "table", "webvid", "kinetics", "davis", "frames")


def find(
    root: Path | str,
    captions: Path | str | None = None,
    layout: str = "auto",
    fields: Mapping[str, str] | None = None,
    source_fps: float | None = None,
) -> Sources:
    """Lists the media below `root` with their captions.

    Args:
        root: a folder (hidden files and links that lead out of it are left aside), one container,
            a TFDS data set's folder, or tfds:NAME.
        captions: a table with a column for the file and one for the caption; a bare name is also
            sought in `root`.
        layout: one of `LAYOUTS`; "auto" takes the first that fits.
        fields: names of the columns, {"file": ..., "caption": ...}, or of the fields of a TFDS set,
            {"media": ..., "caption": ..., "nsfw": ...}.
        source_fps: rate of sources that are pictures and do not say it.

    Raises:
        UserError: no such input, no media in it, captions file missing, empty or of no use.
    """
    named_set = str(root).startswith(tfds_sets.PREFIX)
    root = tfds_sets.directory(str(root)) if named_set else Path(root)
    if layout not in LAYOUTS:
        raise UserError(f"--layout={layout}: must be one of {', '.join(LAYOUTS)}.")
    if captions and layout not in TABLES:
        raise UserError(f"--captions={captions} needs --layout=csv, not {layout}.")
    request = walk.Request(root, str(captions) if captions else None, fields or {}, source_fps)
    if named_set or layout == "tfds" or (layout == "auto" and tfds_sets.is_set(root)):
        if not tfds_sets.is_set(root):
            raise UserError(f"{root}: no TFDS data set (no features.json and dataset_info.json).")
        return tfds_sets.find(request)
    found = _listing(root)
    if layout != "auto":
        return _forced(request, found, layout)
    for name, reader in READERS.items():
        if captions and name not in TABLES:
            continue
        if (found.media or name in CONTAINERS) and (taken := reader(request, found)):
            return taken
    raise UserError(f"{root}: no video or image in this folder ({len(found.others)} other files).")


def _listing(root: Path) -> walk.Listing:
    if root.is_dir():
        return walk.listing(root)
    if root.is_file() and root.suffix in (".tar", ".tfrecord", ".parquet"):
        return walk.Listing(root.parent, [], {root.name}, [])
    raise UserError(f"{root}: not a folder. Give a folder of videos and images.")


def _forced(request: walk.Request, found: walk.Listing, layout: str) -> Sources:
    if not found.media and layout not in CONTAINERS:
        raise UserError(
            f"{request.root}: no video or image in this folder ({len(found.others)} other files)."
        )
    taken = FORCED[layout](request, found)
    if taken is None and layout in ("csv", "table"):
        raise UserError(f"{request.root / folder.TABLES[0]}: no such captions file.")
    if taken is None:
        raise UserError(f"--layout={layout}: {request.root} is not laid out so.")
    return taken
