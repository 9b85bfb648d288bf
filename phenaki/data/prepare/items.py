"""Input items and their containers: an image or a video, where its bytes are, and its caption."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from phenaki.io import signatures
from phenaki.io.clean_text import clean
from phenaki.io.signatures import MediaKind

Split = Literal["train", "validation"]

_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "test"), "validation"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class FileSlice:
    """A byte range of a file, such as a member of a tar; it is read in place."""

    path: Path
    offset: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class FrameSequence:
    """A video as images: files, encoded bytes or uint8 [h w 3], shown at `fps`.

    `fps` of None: the rate is unknown, and every image is one frame of the clip.
    """

    images: Sequence[Path | bytes | np.ndarray]
    fps: float | None = None


Media = Path | FileSlice | bytes | FrameSequence


@dataclasses.dataclass(frozen=True, slots=True)
class RawItem:
    """One image or video. A `caption` of None means unconditional; it is never blank.

    `key` is the path below the input with forward slashes: unique, and the same on every machine.
    `split` and `nsfw` (a flag such as LAION's UNLIKELY) are those of the source, if it has them.
    """

    key: str
    kind: MediaKind
    media: Media
    caption: str | None = None
    split: Split | None = None
    nsfw: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """An input that gives no clip, or a clip without its caption or flags; `reason` says why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """Items to be decoded by one task: listed already, or listed by the `reader` of a container."""

    name: str
    items: tuple[RawItem, ...] = ()
    reader: functools.partial | None = None
    container: Path | None = None

    def __iter__(self) -> Iterator[RawItem | Skipped]:
        return self.reader() if self.reader else iter(self.items)

    def __len__(self) -> int:
        """Number of files; a container is one."""
        return 1 if self.reader else len(self.items)

    def fingerprint(self) -> str:
        """Depends on the names, sizes, modification times and captions of the items."""
        identity = repr((self.name, self.items, _identity(self.reader)))
        digest = hashlib.sha256(identity.encode(errors="backslashreplace"))
        for path in _files(self):
            digest.update(repr(_stamp(path)).encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Inventory:
    """What an input holds; iterates over its `RawItem`s, reading containers.

    `layout` describes the recognised layout and where captions come from; `problems` are captions
    and files of no use; `other` counts files that are neither media nor captions.
    """

    layout: str
    units: tuple[WorkUnit, ...]
    problems: tuple[Skipped, ...] = ()
    other: int = 0

    def __iter__(self) -> Iterator[RawItem]:
        return (item for unit in self.units for item in unit if isinstance(item, RawItem))

    def __len__(self) -> int:
        """Number of files; a container is one."""
        return sum(map(len, self.units))


def _identity(reader: functools.partial | None) -> tuple | None:
    """Names a reader and its arguments, the same in every process (a `repr` has addresses)."""
    if reader is None:
        return None
    return reader.func.__module__, reader.func.__qualname__, reader.args, reader.keywords


def _files(unit: WorkUnit) -> Iterator[Path]:
    if unit.container:
        yield unit.container
    for item in unit.items:
        if isinstance(item.media, Path):
            yield item.media
        elif isinstance(item.media, FrameSequence):
            yield from (image for image in item.media.images if isinstance(image, Path))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class _SliceReader(io.RawIOBase):
    """A `FileSlice` as a file object."""

    def __init__(self, part: FileSlice):
        self._file = part.path.open("rb")
        self._start, self._size, self._at = part.offset, part.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_media(media: Path | FileSlice | bytes) -> io.BufferedIOBase:
    """Opens the bytes of the media as a seekable file."""
    if isinstance(media, bytes):
        return io.BytesIO(media)
    if isinstance(media, FileSlice):
        return io.BufferedReader(_SliceReader(media), 2**16)
    return media.open("rb")


def kind_of(name: str, path: Path | None = None) -> MediaKind | None:
    """The kind of a file by its suffix; None for other files.

    Args:
        path: where the file is. If its suffix says nothing, its first bytes do.
    """
    kind = signatures.kind_of_suffix(name)
    if kind is None and path is not None and signatures.may_be_media(name):
        with contextlib.suppress(OSError), path.open("rb") as file:
            kind = signatures.kind_of_content(signatures.head_of(file), named=False)
    return kind


def split_named(name: str | None) -> Split | None:
    """train for train, training; validation for val, valid, validate, validation, test."""
    return _SPLITS.get((name or "").strip().lower())


def words(name: str) -> str | None:
    """A class name as a caption: adult+female_singing -> adult female singing."""
    return clean(name.replace("_", " ").replace("+", " "))


def is_utf8(name: str) -> bool:
    """Whether a name is valid UTF-8; file systems and tars also hold others."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def escapes(name: str) -> bool:
    """Whether a relative name leaves its folder: absolute, or with a ".." component."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"
