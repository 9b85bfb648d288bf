"""A folder of frames per video, as in DAVIS: JPEGImages/480p/name/00000.jpg."""

import collections
from pathlib import PurePosixPath

from phenaki.data.prepare import caption_tables, captions
from phenaki.data.prepare.items import (
    FrameSequence,
    Inventory,
    RawItem,
    Skipped,
    Split,
    kind_of,
    split_named,
)
from phenaki.data.prepare.layouts import table, walk
from phenaki.errors import UserError

ROOT = "JPEGImages"


def find_davis(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Frame folders, recognised by a folder JPEGImages."""
    if not any(ROOT in PurePosixPath(key).parts for key in found.media):
        return None
    return find_frames(request, found)


def find_frames(request: walk.Request, found: walk.Listing) -> Inventory:
    """Every folder of images is a video, its frames in the order of their names and numbers.

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
    texts, problems = _captions(request, found, list(videos))
    splits = _splits(found)
    found.others |= set(found.media) - set(kept)
    items = []
    for key, names in videos.items():
        ordered = sorted(names, key=lambda name: (walk.natural(name), name))
        frames = FrameSequence([request.root / name for name in ordered], request.source_fps)
        split = splits.get(PurePosixPath(key).name) or found.split_of(names[0])
        items.append(RawItem(key, "video", frames, texts.get(key, ()), split))
    fps = request.source_fps
    rate = f"at {fps:g} fps" if fps else "each image one frame of the clips"
    notes = found.split_notes()
    return walk.inventory(f"folders of frames, {rate}", items, found, problems, notes)


def _captions(
    request: walk.Request, found: walk.Listing, keys: list[str]
) -> tuple[dict[str, tuple[str, ...]], list[Skipped]]:
    """The captions of the videos `keys`, whose rows name the folder or its last part."""
    texts: dict[str, tuple[str, ...]] = {}
    problems = []
    known = {PurePosixPath(key).name: key for key in keys} | {key: key for key in keys}
    for path in table.captions_files(request, found):
        if path.is_relative_to(request.root):
            found.others.discard(path.relative_to(request.root).as_posix())
        for line, row in caption_tables.rows(path):
            name, several = table.columns(request, path, row)
            key = known.get(row[name].strip().strip("/"))
            if key is None:
                problems.append(Skipped(row[name], f"{path.name}:{line}: no such folder of images"))
                continue
            new = [text for column in several for text in captions.of(row[column])]
            texts[key] = tuple(dict.fromkeys((*texts.get(key, ()), *new)))
    return texts, problems


def _splits(found: walk.Listing) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for key in found.named("ImageSets/*.txt", "ImageSets/*/*.txt"):
        split = split_named(PurePosixPath(key).stem)
        if split is not None:
            for name in (found.root / key).read_text(errors="replace").split():
                splits.setdefault(PurePosixPath(name).name, split)
    return splits
