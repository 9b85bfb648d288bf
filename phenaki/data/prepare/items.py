"""One record for whatever users have: a picture or a video, wherever it lies, and its caption."""

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

Kind = Literal["image", "video"]
Split = Literal["train", "validation"]

_VIDEO = "mp4 m4v mov mkv webm avi mpg mpeg ts m2ts mts 3gp wmv flv ogv gif y4m mxf"
_IMAGE = "jpg jpeg png webp bmp tif tiff avif ppm"
_KINDS: dict[str, Kind] = {
    **dict.fromkeys((f".{suffix}" for suffix in _VIDEO.split()), "video"),
    **dict.fromkeys((f".{suffix}" for suffix in _IMAGE.split()), "image"),
}
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "test"), "validation"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class FileSlice:
    """A part of a file, such as a member of a tar; read where it lies."""

    path: Path
    offset: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Frames:
    """A video as pictures: files, encoded bytes or uint8 [h w 3], shown at `fps`.

    `fps` of None: the rate is not known, every picture is one frame of the clip.
    """

    images: Sequence[Path | bytes | np.ndarray]
    fps: float | None = None


Media = Path | FileSlice | bytes | Frames


@dataclasses.dataclass(frozen=True, slots=True)
class RawItem:
    """One picture or video. A `caption` of None means unconditional; it is never blank.

    `key` is the path below the input with forward slashes: unique, and the same on every machine.
    `split` and `nsfw` (a flag such as LAION's UNLIKELY) are what the source says, if it does.
    """

    key: str
    kind: Kind
    media: Media
    caption: str | None = None
    split: Split | None = None
    nsfw: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """Something of the input that gives no clip, or gives it without what belongs to it."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class WorkUnit:
    """A piece of work: items that are listed already, or a container that its reader lists."""

    name: str
    items: tuple[RawItem, ...] = ()
    reader: functools.partial | None = None
    container: Path | None = None

    def __iter__(self) -> Iterator[RawItem | Skipped]:
        return self.reader() if self.reader else iter(self.items)

    def __len__(self) -> int:
        """Files in it."""
        return 1 if self.reader else len(self.items)

    def fingerprint(self) -> str:
        """Changes with the names, sizes, times of change and captions of what is in it."""
        said = repr((self.name, self.items, _said(self.reader)))
        digest = hashlib.sha256(said.encode(errors="backslashreplace"))
        for path in _files(self):
            digest.update(repr(_stamp(path)).encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Sources:
    """What an input holds: iterate for its `RawItem`s; containers are read for it.

    `layout` says in words what was found and where captions came from; `problems` are captions and
    files that could not be used; `other` counts files that are neither media nor captions.
    """

    layout: str
    units: tuple[WorkUnit, ...]
    problems: tuple[Skipped, ...] = ()
    other: int = 0

    def __iter__(self) -> Iterator[RawItem]:
        return (item for unit in self.units for item in unit if isinstance(item, RawItem))

    def __len__(self) -> int:
        """Files, a container being one."""
        return sum(map(len, self.units))


def _said(reader: functools.partial | None) -> tuple | None:
    """A reader in words that are the same in every process."""
    return (
        None
        if reader is None
        else (
            reader.func.__module__,
            reader.func.__qualname__,
            reader.args,
            reader.keywords,
        )
    )


def _files(unit: WorkUnit) -> Iterator[Path]:
    if unit.container:
        yield unit.container
    for item in unit.items:
        if isinstance(item.media, Path):
            yield item.media
        elif isinstance(item.media, Frames):
            yield from (image for image in item.media.images if isinstance(image, Path))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class _Part(io.RawIOBase):
    """A `FileSlice` as a file of its own."""

    def __init__(self, window: FileSlice):
        self._file = window.path.open("rb")
        self._start, self._size, self._at = window.offset, window.size, 0

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


def opened(media: Path | FileSlice | bytes) -> io.BufferedIOBase:
    """The media's bytes as a file to read and seek in."""
    if isinstance(media, bytes):
        return io.BytesIO(media)
    if isinstance(media, FileSlice):
        return io.BufferedReader(_Part(media), 2**16)
    return media.open("rb")


def kind_of(name: str) -> Kind | None:
    """By the suffix."""
    return _KINDS.get(PurePosixPath(name).suffix.lower())


def split_named(name: str | None) -> Split | None:
    """train for train, training; validation for val, valid, validate, validation, test."""
    return _SPLITS.get((name or "").strip().lower())


def clean(caption: str | None) -> str | None:
    """One line without blanks around, and UTF-8; None instead of nothing."""
    # Half a surrogate pair, as JSON can escape it, is no text that could be written.
    text = (caption or "").encode("utf-8", "replace").decode()
    return " ".join(text.split()) or None


def words(name: str) -> str | None:
    """A class as a caption: adult+female_singing -> adult female singing."""
    return clean(name.replace("_", " ").replace("+", " "))


def is_utf8(name: str) -> bool:
    """Whether a name can be written: file systems and tars also have others."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def leads_out(name: str) -> bool:
    """Whether a relative name is none: absolute, or with a way up."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"
