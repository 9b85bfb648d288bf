"""TFRecord files with media in them: img2dataset, video2dataset, DMVR."""

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phenaki.data import tensorflow
from phenaki.data.prepare import captions
from phenaki.data.prepare.items import (
    FrameSequence,
    Inventory,
    MediaKind,
    RawItem,
    Skipped,
    Split,
    class_caption,
    kind_of,
)
from phenaki.data.prepare.layouts import metadata, walk

_TFRECORD = re.compile(r"\.tfrecords?$|\.tfrecords?-[^/.]*$|-[0-9]+-of-[0-9]+$")
CAPTIONS = ("txt", "caption", "text", "TEXT", *captions.NAMES)
_FRAMES, _TEXT, _LABEL = "image/encoded", "caption/string", "clip/label/text"
_TIMES = ("clip/start/timestamp", "clip/end/timestamp")  # microseconds


def find_tfrecords(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """tf.train.Examples of img2dataset and video2dataset, or SequenceExamples of DMVR."""
    keys = [key for key in sorted(found.others) if _TFRECORD.search(key)]
    if not keys:
        return None
    layout = "TFRecords of img2dataset or video2dataset"
    read: Callable = examples
    if _is_sequence(found.root / keys[0]):
        layout = "TFRecords of DMVR (SequenceExamples)"
        read = functools.partial(sequences, fps=request.source_fps, template=request.template)
        return walk.containers(layout, keys, found, read, classes=True)
    return walk.containers(layout, keys, found, read)


def serialized(path: Path, key: str) -> Iterator[bytes | Skipped]:
    """The records of a TFRecord file, up to the first corrupt one."""
    tf = tensorflow.tensorflow()
    count = 0
    try:
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
            yield record
            count += 1
    except tf.errors.OpError as error:
        yield Skipped(key, f"TFRecord corrupt after {count} records: {str(error.message)[:60]}")


def _is_sequence(path: Path) -> bool:
    first = next(serialized(path, ""), b"")
    if isinstance(first, Skipped):
        return False
    try:
        read = tensorflow.tensorflow().train.SequenceExample.FromString(first)
    except Exception:  # protobuf's own DecodeError, which TensorFlow does not export
        return False
    return bool(read.feature_lists.feature_list)


def _parsed(proto: str, path: Path, key: str) -> Iterator[tuple[str, Any] | Skipped]:
    parse = getattr(tensorflow.tensorflow().train, proto).FromString
    for number, record in enumerate(serialized(path, key)):
        name = f"{key}/{number:09d}"
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            yield name, parse(record)
        except Exception:
            yield Skipped(name, f"not a {proto}")


def examples(path: Path, key: str, split: Split | None = None) -> Iterator[RawItem | Skipped]:
    """Examples with key, jpg or mp4 (or another suffix), txt."""
    for parsed in _parsed("Example", path, key):
        if isinstance(parsed, Skipped):
            yield parsed
            continue
        name, example = parsed
        row = {field: _first(value) for field, value in example.features.feature.items()}
        yield _example(name, key, row, split)


def _example(name: str, key: str, row: Mapping[str, Any], split: Split | None) -> RawItem | Skipped:
    media = {
        f: k for f, v in row.items() if v and isinstance(v, bytes) and (k := kind_of(f"x.{f}"))
    }
    if own := text(row.get("key")):
        name = f"{key}/{own}"
    if not media:
        return Skipped(name, "no image or video in this record")
    suffix, kind = next(iter(media.items()))
    about = metadata.of({f: text(v) for f, v in row.items() if f not in media}, CAPTIONS)
    stored = about.media(row[suffix], kind)
    return RawItem(f"{name}.{suffix}", kind, stored, about.captions, split, about.nsfw)


def sequences(
    path: Path,
    key: str,
    split: Split | None = None,
    fps: float | None = None,
    template: str = "{}",
) -> Iterator[RawItem | Skipped]:
    """SequenceExamples with image/encoded; the rate is `fps`, or that of the clip's timestamps."""
    for parsed in _parsed("SequenceExample", path, key):
        if isinstance(parsed, Skipped):
            yield parsed
            continue
        name, example = parsed
        context = {field: _first(value) for field, value in example.context.feature.items()}
        frames = [_first(f) for f in example.feature_lists.feature_list[_FRAMES].feature]
        images = [image for image in frames if isinstance(image, bytes)]
        if not images:
            yield Skipped(name, "no image/encoded in this record")
            continue
        texts = captions.of(text(context.get(_TEXT)))
        texts = texts or class_caption(text(context.get(_LABEL)), template)
        start, end = (context.get(field) for field in _TIMES)
        rate = fps
        if rate is None and isinstance(start, int) and isinstance(end, int) and end > start:
            rate = len(images) * 1e6 / (end - start)
        kind: MediaKind = "video" if len(images) > 1 else "image"
        media = FrameSequence(images, rate) if kind == "video" else images[0]
        yield RawItem(name, kind, media, texts, split)


def _first(feature) -> bytes | int | float | None:
    values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
    return values[0] if len(values) else None


def text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
