"""A folder of frames per video, as in DAVIS: JPEGImages/480p/name/00000.jpg."""

import collections
from pathlib import PurePosixPath

from phenaki.data.prepare import caption_tables
from phenaki.data.prepare.items import (
    FrameSequence,
    Inventory,
    RawItem,
    Skipped,
    Split,
    kind_of,
    one_caption,
    split_named,
)
from phenaki.data.prepare.layouts import folder, walk
from phenaki.errors import UserError
from phenaki.io.clean_text import clean

ROOT = "JPEGImages"


def find_davis(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Frame folders, recognised by a folder JPEGImages."""
    if not any(ROOT in PurePosixPath(key).parts for key in found.media):
        return None
    return find_frames(request, found)


def find_frames(request: walk.Request, found: walk.Listing) -> Inventory:
    """Every folder of images is a video, its frames in the order of their names.

    Captions come from a table whose file column names the folder; splits from ImageSets/*/train.txt
    and val.txt. The rate is not on disk: without --source_fps every image is one frame of a clip.
    """
    kept = [key for key in found.media if kind_of(key) == "image"]
    if any(ROOT in PurePosixPath(key).parts for key in kept):
        kept = [key for key in kept if ROOT in PurePosixPath(key).parts]  # not the annotations
    videos: dict[str, list[str]] = collections.defaultdict(list)
    for key in kept:
        videos[PurePosixPath(key).parent.as_posix()].append(key)
    if not videos:
        raise UserError(f"{request.root}: no folder of images in it.")
    captions, problems = _captions(request, found)
    splits = _splits(found)
    found.others |= set(found.media) - set(kept)
    items = []
    for key, names in videos.items():
        name = PurePosixPath(key).name
        frames = FrameSequence([request.root / one for one in sorted(names)], request.source_fps)
        caption = captions.get(key, captions.get(name))
        items.append(RawItem(key, "video", frames, one_caption(caption), splits.get(name)))
    fps = request.source_fps
    rate = f"at {fps:g} fps" if fps else "each image one frame of the clips"
    return walk.inventory(f"folders of frames, {rate}", items, found, problems)


def _captions(request: walk.Request, found: walk.Listing) -> tuple[dict, list[Skipped]]:
    table = folder.captions_file(request, found)
    if table is None:
        return {}, []
    found.others.discard(table.name)
    captions, problems = {}, []
    for line, row in caption_tables.rows(table):
        name, caption = (
            caption_tables.column(row, one) for one in (caption_tables.FILE, caption_tables.CAPTION)
        )
        if name and caption and row[name].strip():
            captions[row[name].strip().strip("/")] = clean(row[caption])
        else:
            problems.append(Skipped(table.name, f"line {line}: no file and caption"))
    return captions, problems


def _splits(found: walk.Listing) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for key in found.named("ImageSets/*.txt", "ImageSets/*/*.txt"):
        split = split_named(PurePosixPath(key).stem)
        if split is not None:
            for name in (found.root / key).read_text(errors="replace").split():
                splits.setdefault(PurePosixPath(name).name, split)
    return splits
