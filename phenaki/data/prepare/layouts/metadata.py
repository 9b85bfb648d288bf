"""The text next to an image or a video: a .txt with a caption, or a .json with more."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phenaki.data.prepare import captions, img2dataset
from phenaki.data.prepare.items import FileSlice, MediaKind, Padded

TEXTS = ("json", "txt", "text", "caption")  # suffixes, those of objects first


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Captions and NSFW flag of an item; `size` and `orientation` are those of `items.Padded`."""

    captions: tuple[str, ...] = ()
    nsfw: str | None = None
    size: tuple[int, int] | None = None
    orientation: int = 1

    def media(self, media: Path | FileSlice | bytes, kind: MediaKind) -> Any:
        """The media as its metadata says that it is stored."""
        if kind == "image" and (self.size or self.orientation > 1):
            return Padded(media, self.size, self.orientation)
        return media


def of(content: Mapping[str, Any], names: Iterable[str] = captions.NAMES) -> Metadata:
    """The metadata in an object or a row; captions are those of the first of `names` with any."""
    found = (captions.of(content.get(name)) for name in names)
    return Metadata(
        next(filter(None, found), ()),
        captions.flag_of(content),
        img2dataset.size(content),
        img2dataset.orientation(content),
    )


def read(text: str, suffix: str) -> Metadata:
    """The metadata in the text of a file with that suffix.

    A .json holds an object, a text, or a list of texts.

    Raises:
        ValueError: not JSON, or no text in it.
    """
    if suffix != "json":
        return Metadata(captions.of(text))
    content = json.loads(text)
    if isinstance(content, dict):
        return of(content)
    if isinstance(content, str | list) and (found := captions.of(content)):
        return Metadata(found)
    raise ValueError('not an object with "caption" or "text", nor a list of texts')


def joined(found: Iterable[Metadata]) -> Metadata:
    """Of several texts of an item the first caption, flag and size each."""
    result = Metadata()
    for one in found:
        result = Metadata(
            result.captions or one.captions,
            result.nsfw or one.nsfw,
            result.size or one.size,
            max(result.orientation, one.orientation),
        )
    return result
