"""A folder of frames per video, as in DAVIS: JPEGImages/480p/name/00000.jpg."""

import collections
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import text_files
from phenaki.data.prepare.items import (
    FrameSequence,
    Inventory,
    RawItem,
    Split,
    kind_of,
    split_named,
)
from phenaki.data.prepare.layouts import folder, walk
from phenaki.data.prepare.layouts import table as tables
from phenaki.errors import UserError

ROOT = "JPEGImages"
_TOP = PurePosixPath()


def find_davis(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Frame folders, recognised by a folder JPEGImages."""
    if not any(ROOT in PurePosixPath(key).parts for key in found.media):
        return None
    return find_frames(request, found)


def find_frames(request: walk.Request, found: walk.Listing) -> Inventory:
    """Every folder of images is a video, its frames in the order of their names and numbers.

    Captions, flags and splits come from a table whose file column names the folder, or its last
    part if only one has it, or from name.txt next to the folder; splits first from ImageSets/*/
    train.txt and val.txt. The rate is not on disk: without --source_fps every image is one frame of
    a clip.
    """
    kept = [key for key in found.media if kind_of(key) == "image"]
    if any(ROOT in PurePosixPath(key).parts for key in kept):
        kept = [key for key in kept if ROOT in PurePosixPath(key).parts]  # not the annotations
    videos: dict[str, list[str]] = collections.defaultdict(list)
    for key in kept:
        videos[PurePosixPath(key).parent.as_posix()].append(key)
    if not videos:
        raise UserError(f"{request.root}: no folder of images in it.")
    reader = _captions(request, found, videos)
    sides = folder.Sides(found.others)
    splits = _splits(found)
    found.others |= set(found.media) - set(kept)
    items = []
    for key, names in videos.items():
        ordered = sorted(names, key=lambda name: (walk.natural(name), name))
        frames = FrameSequence([request.root / name for name in ordered], request.source_fps)
        entry, texts = reader.entry(key), sides.named(key)
        side = folder.read_sides(key, texts, request.root, reader.problems)
        found.others -= set(texts)
        split = splits.get(PurePosixPath(key).name) or entry.split or found.split_of(names[0])
        about, nsfw = entry.captions or side.captions, entry.nsfw or side.nsfw
        items.append(RawItem(key, "video", frames, about, split, nsfw))
    fps = request.source_fps
    rate = f"at {fps:g} fps" if fps else "each image one frame of the clips"
    notes = [*found.split_notes(), *reader.notes]
    return walk.inventory(f"folders of frames, {rate}", items, found, reader.problems, notes)


def _captions(
    request: walk.Request, found: walk.Listing, videos: Mapping[str, Sequence[str]]
) -> "_FolderReader":
    """What tables say of the videos, whose rows name the folder or its last part."""
    reader = _FolderReader(request, found, videos)
    for path in tables.captions_files(request, found):
        found.others.discard(tables.key_of(path, request.root))
        reader.read(path)
    return reader


class _FolderReader(tables.TableReader):
    """Collects the rows of tables by folder of images, of `videos` with their images."""

    wanted = "folder of images"
    times_hint = "folders of frames are read whole"

    def __init__(
        self, request: walk.Request, found: walk.Listing, videos: Mapping[str, Sequence[str]]
    ):
        super().__init__(request, found)
        self._videos = videos
        self._last: dict[str, list[str]] = collections.defaultdict(list)
        for key in videos:
            self._last[PurePosixPath(key).name].append(key)

    def find(self, name: str, place: PurePosixPath, row: Mapping[str, str]) -> str | None:
        names = [name, name.rpartition(".")[0]] if kind_of(name) else [name]
        found = (self.files.find(one, top) for one in names for top in (place, _TOP))
        return next(filter(None, found), None) or next(filter(self._is_one_video, names), None)

    def _is_one_video(self, name: str) -> bool:
        """Whether all folders of a name are one video, in DAVIS's resolutions."""
        keys = self._last.get(name.strip(), [])
        return bool(keys) and all(ROOT in PurePosixPath(key).parts for key in keys)

    @functools.cached_property
    def files(self) -> tables.Files:
        return tables.Files(walk.Listing(self.found.root, list(self._videos), set()))

    def entry(self, key: str) -> folder.Entry:
        """What is known of a video: of its folder, or else by the last part of its name."""
        return self.entries.get(key) or self.entries.get(PurePosixPath(key).name) or folder.Entry()

    def split(self, key: str, row: dict[str, str], table: Path) -> Split | None:
        first = self._videos.get(key) or self._videos[self._last[key][0]]
        return super().split(first[0], row, table)

    def why_not(self, name: str, place: PurePosixPath) -> str:
        several = self._last.get(name.strip(), [])
        return "several folders of this name" if len(several) > 1 else "no such folder of images"


def _splits(found: walk.Listing) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for key in found.named("ImageSets/*.txt", "ImageSets/*/*.txt"):
        split = split_named(PurePosixPath(key).stem)
        if split is not None:
            for name in text_files.read(found.root / key).split():
                splits.setdefault(PurePosixPath(name).name, split)
    return splits
