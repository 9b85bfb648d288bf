"""Input items and their containers: an image or a video, where its bytes are, and its captions."""

import contextlib
import dataclasses
import decimal
import functools
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from phenaki.data.prepare import img2dataset
from phenaki.io import signatures
from phenaki.io.clean_text import clean
from phenaki.io.signatures import MediaKind

Split = Literal["train", "validation"]

_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "validation"),
}
_CAMEL = re.compile(r"(?:[A-Z][a-z0-9]+|[A-Z]+(?=[A-Z]|$))+")  # ApplyEyeMakeup, TVShow


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


@dataclasses.dataclass(frozen=True, slots=True)
class Padded:
    """An image that img2dataset has padded to a square or turned; see `img2dataset.restore`.

    `size` is the (width, height) before, None if unknown; `orientation` is EXIF's, 1 to 8.
    """

    media: Path | FileSlice | bytes
    size: tuple[int, int] | None
    orientation: int = 1


Media = Path | FileSlice | bytes | FrameSequence | Padded


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """The part of a video from `start` until before `end`; None: until the file ends.

    Both count from the first frame shown, in seconds or, with `unit` "frames", in frames. An end
    may lie up to `slack` seconds past that of the file: published ends are rounded.
    """

    start: Fraction
    end: Fraction | None = None
    unit: Literal["seconds", "frames"] = "seconds"
    slack: Fraction = Fraction(1)

    def __str__(self) -> str:
        mark = "f" if self.unit == "frames" else ""
        end = "end" if self.end is None else f"{mark}{_decimal(self.end)}"
        return f"{mark}{_decimal(self.start)}-{end}"


def _decimal(value: Fraction) -> str:
    """12.5 for 25/2."""
    with decimal.localcontext(prec=60):
        text = f"{decimal.Decimal(value.numerator) / value.denominator:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclasses.dataclass(frozen=True, slots=True)
class RawItem:
    """One image or video with its `captions`: none means unconditional; no caption is blank.

    `key` is the path below the input with forward slashes: unique, and the same on every machine.
    `split` and `nsfw` (a flag such as LAION's UNLIKELY) are those of the source, if it has them.
    The key of a `segment` ends in #SEGMENT.
    """

    key: str
    kind: MediaKind
    media: Media
    captions: tuple[str, ...] = ()
    split: Split | None = None
    nsfw: str | None = None
    segment: Segment | None = None

    @property
    def source(self) -> str:
        """The key of the file; of a segment, that of its video."""
        return self.key if self.segment is None else self.key.removesuffix(f"#{self.segment}")

    @property
    def caption(self) -> str | None:
        """The first caption."""
        return self.captions[0] if self.captions else None


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
    and files of no use; `other` counts files that are neither media nor captions, which `unused`
    names, with the hidden ones. `notes` are guesses, each a line with the flag that overrides it.
    `classes`: the captions are names of classes. `camera` is the one that was chosen of several.
    """

    layout: str
    units: tuple[WorkUnit, ...]
    problems: tuple[Skipped, ...] = ()
    other: int = 0
    unused: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    classes: bool = False
    camera: str | None = None

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
        media = item.media.media if isinstance(item.media, Padded) else item.media
        if isinstance(media, Path):
            yield media
        elif isinstance(media, FrameSequence):
            yield from (image for image in media.images if isinstance(image, Path))


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


def open_media(media: Path | FileSlice | bytes | Padded) -> io.BufferedIOBase:
    """Opens the bytes of the media as a seekable file."""
    if isinstance(media, Padded):
        return img2dataset.restore(open_media(media.media), media.size, media.orientation)
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
    """train for train, training; validation for val, valid, dev, test, eval and longer forms.

    Digits may follow, as in train2017.
    """
    return _SPLITS.get(re.sub(r"[-_ ]?[0-9]+$", "", (name or "").strip().lower()))


def words(name: str) -> str | None:
    """A class name as words: adult+female_singing -> adult female singing.

    CamelCase is split and in lower case: ApplyEyeMakeup -> apply eye makeup.
    """
    if _CAMEL.fullmatch(name) and not name.isupper():
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    return clean(name.replace("_", " ").replace("+", " "))


def class_caption(name: str, template: str = "{}") -> tuple[str, ...]:
    """The caption of a class: its words in place of the braces of `template`; none if blank."""
    found = words(name)
    return (template.replace("{}", found),) if found else ()


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
