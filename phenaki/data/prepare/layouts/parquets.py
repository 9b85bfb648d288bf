"""Parquet files with media in them: img2dataset's, video2dataset's, and those of the Hub."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from phenaki.data.prepare import caption_tables
from phenaki.data.prepare.items import (
    Inventory,
    MediaKind,
    RawItem,
    Skipped,
    Split,
    class_caption,
    kind_of,
)
from phenaki.data.prepare.layouts import metadata, stored, walk
from phenaki.errors import UserError
from phenaki.io.signatures import HEAD, kind_of_content

_NAMES: dict[str, MediaKind] = {"video": "video", "clip": "video", "image": "image", "img": "image"}


def find(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """Parquet files with a column of media: bytes, or the Hub's struct of bytes and path.

    Columns of bytes are known by a name such as jpg, mp4, image or video, or by their content.
    Without a caption, the names of the Hub's class labels are the captions.
    """
    keys: list[str] = []
    columns = Columns()
    for key in found.named("*.parquet"):
        of_file = _columns(found.root / key, request.fields)
        if of_file.media:
            columns = columns if keys else of_file
            keys.append(key)
    if not keys and (wanted := request.fields.get("media")):
        raise UserError(f"--fields=media={wanted}: no parquet file here has that column of media.")
    if not keys:
        return None
    if (wanted := request.fields.get("caption")) and not columns.caption:
        raise UserError(
            f"--fields=caption={wanted}: {keys[0]} has only {', '.join(columns.every)}."
        )
    read = functools.partial(rows, fields=dict(request.fields), template=request.template)
    classes = bool(columns.labels)
    notes = columns.notes() if "media" not in request.fields else []
    return walk.containers("parquet with media in it", keys, found, read, notes, classes)


class Columns:
    """Which columns of a file hold media and captions; `labels` are the names of classes."""

    def __init__(
        self,
        media: Sequence[str] = (),
        caption: Sequence[str] = (),
        labels: Mapping[str, Sequence[str]] | None = None,
        every: Sequence[str] = (),
    ):
        self.media, self.caption = tuple(media), tuple(caption)
        self.labels, self.every = dict(labels or {}), tuple(every)

    def notes(self) -> list[str]:
        """What is a guess."""
        named = [name for name in self.media if kind_of(f"x.{name}") is None]
        lines = []
        if len(named) > 1:
            others = ", ".join(named[1:])
            lines.append(f"media from column {named[0]}, not {others}; --fields=media=NAME chooses")
        if self.labels:
            (name,) = self.labels
            lines.append(f"captions are classes, of column {name}; --fields=caption=NAME chooses")
        elif not self.caption:
            names = ", ".join(name for name in self.every if name not in self.media) or "none"
            lines.append(f"no column of captions (others: {names}); --fields=caption=NAME gives it")
        return lines


def _columns(path: Path, fields: Mapping[str, str]) -> Columns:
    import pyarrow
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError):
        return Columns()
    every = list(schema.names)
    media = [field.name for field in schema if _may_hold_media(field)]
    known = [n for n in media if kind_of(f"x.{n}") or n.lower() in _NAMES or _is_struct(schema, n)]
    media = known or [name for name in media if kind_of_content(_first(path, name), named=False)]
    if "media" in fields:
        media = [fields["media"]] if fields["media"] in every else []
    wanted = [fields["caption"]] if "caption" in fields else stored.CAPTIONS
    caption = [name for name in wanted if name in every]
    labels = _labels(schema)
    used = caption if "caption" in fields else [] if caption else list(labels)[:1]
    return Columns(media, caption, {n: labels[n] for n in used if n in labels}, every)


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_struct(schema: Any, name: str) -> bool:
    return not _is_bytes(schema.field(name).type)


def _may_hold_media(field: Any) -> bool:
    """Whether a column holds bytes, or structs with a field `bytes`."""
    from pyarrow import types

    kind = field.type
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return _is_bytes(kind)


def _labels(schema: Any) -> dict[str, list[str]]:
    """The class names of the Hub's label columns."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
        return {
            name: list(feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _first(path: Path, column: str) -> bytes:
    """The first bytes in a column."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(1, columns=[column]):
            if value := batch.column(0)[0].as_py():
                return value
    return b""


def rows(
    path: Path,
    key: str,
    split: Split | None = None,
    fields: Mapping[str, str] | None = None,
    template: str = "{}",
) -> Iterator[RawItem | Skipped]:
    """Rows with an image or a video and a caption; fields as in --fields."""
    columns = _columns(path, fields or {})
    try:
        for number, row in enumerate(caption_tables.batches(path)):
            yield _item(f"{key}/{number:09d}", key, row, columns, template, split)
    except UserError as error:
        yield Skipped(key, str(error).removeprefix(f"{path}: "))


def _item(
    name: str,
    key: str,
    row: Mapping[str, Any],
    columns: Columns,
    template: str,
    split: Split | None,
) -> RawItem | Skipped:
    own = stored.text(row.get("key"))
    name = f"{key}/{own}" if own else name
    paths = []
    for column in columns.media:
        value = row[column]
        content, place = value, ""
        if isinstance(value, dict):
            content, place = value.get("bytes"), stored.text(value.get("path"))
        if not content or not isinstance(content, bytes):
            paths += [place] * bool(place)
            continue
        suffix = column if kind_of(f"x.{column}") else PurePosixPath(place).suffix[1:] or column
        kind = kind_of(f"x.{suffix}") or kind_of_content(content[:HEAD], named=False)
        kind = kind or _NAMES.get(column.lower(), "image")
        texts = {n: v for n, v in row.items() if n not in columns.media}
        about = metadata.of(texts, columns.caption)
        captions = about.captions
        for label, names in columns.labels.items():
            index = row.get(label)
            if isinstance(index, int) and 0 <= index < len(names):
                captions = class_caption(names[index], template)
        return RawItem(
            f"{name}.{suffix}", kind, about.media(content, kind), captions, split, about.nsfw
        )
    if paths:
        return Skipped(name, f"its bytes are not in this file, only the path {paths[0]}")
    return Skipped(name, "no image or video in this record")
