"""Tokens of clips and ids of captions, computed once, as endless streams of batches.

One directory is what `phenaki.train.encode_dataset` made of one data set: TFRecords named as its
files are, and codes.json, which comes last and says what they were made with.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from phenaki.data import mixture, seqio_source, tensorflow
from phenaki.data.records import Records
from phenaki.errors import UserError

MANIFEST = "codes.json"
SCHEMA = 1
EMBEDDING = ml_dtypes.bfloat16  # as stored


@dataclasses.dataclass(frozen=True)
class Origin:
    """What codes and ids depend on; files of another origin are stale. "" where there is none."""

    tokenizer: str
    pixels: str
    text: str
    encoder: str  # of embeddings

    @classmethod
    def of(cls, config) -> "Origin":
        """That of a stage-2 config with its tokenizer's sizes and fingerprint."""
        video, text = config.video, config.text
        return cls(
            tokenizer=config.fingerprint,
            pixels=f"{video.frames}x{video.height}x{video.width} at {video.fps:g} fps",
            text=f"{_named(text.vocabulary)}, {text.length} ids" if text else "",
            encoder=_encoder(text) if text and text.cached else "",
        )

    def digest(self) -> str:
        """16 hex digits, in every record."""
        return _digest(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _named(vocabulary: str) -> str:
    """A vocabulary by its content, wherever its file lies."""
    file = Path(vocabulary.partition(":")[2] or vocabulary)
    return f"{file.name} {_digest(file.read_bytes())}" if file.is_file() else vocabulary


def _encoder(text) -> str:
    """A text encoder by its sizes and the last part of its checkpoint's path, which may move."""
    fields = {k: v for k, v in text.items() if k not in ("vocabulary", "cached")}
    fields["weights"] = "/".join(text.weights.rstrip("/").split("/")[-2:])
    return f"{fields['weights']} {_digest(json.dumps(fields, sort_keys=True).encode())}"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of arrays: codes of a clip and of a still, ids and width of a caption (0 without)."""

    video: int
    image: int
    text: int
    width: int


def example(
    codes: np.ndarray,
    ids: np.ndarray,
    embeddings: np.ndarray | None,
    caption: bytes,
    captioned: bool,
    key: bytes,
    origin: str,
) -> bytes:
    """One record: a tf.train.Example whose arrays are little-endian bytes.

    Args:
        codes: [n]. ids: [l], padded with 0. embeddings: [l d] or None; only those of ids are kept.
    """
    tf = tensorflow.tensorflow()
    used = int((ids > 0).sum())
    values = {
        "codes": codes.astype("<u4" if codes.dtype.itemsize > 2 else "<u2").tobytes(),
        "ids": ids[:used].astype("<u4").tobytes(),
        "caption": caption,
        "captioned": b"\1" if captioned else b"\0",
        "key": key,
        "origin": origin.encode(),
    }
    if embeddings is not None:
        values["embeddings"] = embeddings[:used].astype(EMBEDDING).tobytes()
    feature = {k: tf.train.Feature(bytes_list={"value": [v]}) for k, v in values.items()}
    message = tf.train.Example(features=tf.train.Features(feature=feature))
    return message.SerializeToString(deterministic=True)


def open_codes(directory: Path | str) -> dict[str, Any]:
    """The manifest of a directory of codes.

    Raises:
        UserError: no such directory, or not all of it is encoded yet.
    """
    path = os.path.join(directory, MANIFEST)
    gfile = tensorflow.tensorflow().io.gfile
    if not gfile.exists(path):
        raise UserError(
            f"{directory}: has no {MANIFEST}, so it is not codes, or not all of them yet; "
            "scripts/encode_dataset.py makes and finishes them."
        )
    with gfile.GFile(path) as file:
        manifest = json.loads(file.read())
    if manifest["schema"] != SCHEMA:
        raise UserError(f"{path}: schema {manifest['schema']} is not {SCHEMA}; encode it again.")
    return manifest


def check(directory: Path | str, manifest: dict[str, Any], origin: Origin) -> None:
    """Raises `UserError`, naming both, where codes were made with something else than `origin`."""
    stored = manifest["origin"]
    for field, now in dataclasses.asdict(origin).items():
        spare = field == "encoder" and not now  # embeddings that nobody asks for
        if stored[field] != now and not spare:
            raise UserError(
                f"{directory}: is stale: encoded with {field} {stored[field] or 'none'!r}; this "
                f"run has {now or 'none'!r}. scripts/encode_dataset.py with this run's config and "
                "tokenizer encodes again what changed."
            )


class _Codes:
    """The records of one source."""

    def __init__(self, directory, kind: str, split: str, origin: Origin, index: int, seed: int):
        manifest = open_codes(directory)
        check(directory, manifest, origin)
        name = f"{kind}_{split}"
        if name not in manifest["files"]:
            known = ", ".join(sorted(manifest["files"]))
            raise UserError(f"{directory}: has no split {name}; it has {known}.")
        self.sizes = Sizes(**manifest["sizes"])
        files = [os.path.join(directory, file["name"]) for file in manifest["files"][name]]
        self.records = Records(files)
        self.paths = self.records.paths
        self.order = mixture.Order(len(self.records), (seed, index))

    def read(self, number: np.integer) -> bytes:
        """The record of that example of the source."""
        return self.records[self.order(int(number))]

    def take(self, numbers: np.ndarray) -> list[bytes]:
        """The records of these examples of the source."""
        return self.records.take([self.order(int(number)) for number in numbers])

    def decode(self, numbers):
        """Reads and parses the records that are asked for."""
        tf = tensorflow.tensorflow()

        def step(number):
            record = tf.numpy_function(self.read, [number], tf.string)
            return tf.io.parse_single_example(tf.ensure_shape(record, ()), _fields(tf))

        return numbers.map(tf.autograph.experimental.do_not_convert(step))


def _parts(sources, kind: str, split: str, origin: Origin, seed: int) -> list[_Codes]:
    return [
        _Codes(directory, kind, split, origin, index, seed)
        for index, directory in enumerate(mixture.rates(sources))
    ]


def register(
    name: str,
    sources: mixture.Sources,
    kind: str,
    split: str,
    origin: Origin,
    seed: int,
    stream: seqio_source.Stream,
):
    """Adds a seqio mixture `name` of these codes, as `stored_clips.register` does of pixels.

    Features are strings of bytes, as `example` makes them. `batches` gives the same examples in the
    same order, some thirty times as fast: seqio handles them one by one.
    """
    feature = tensorflow.seqio().ContinuousFeature(dtype=tensorflow.tensorflow().string, rank=0)
    features = dict.fromkeys(_fields(tensorflow.tensorflow()), feature)
    parts = _parts(sources, kind, split, origin, seed)
    return seqio_source.mix(name, parts, sources, features, split, seed, stream)


def batches(
    sources: mixture.Sources,
    *,
    split: str,
    kind: str,
    size: int,
    origin: Origin,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
    start: int = 0,
) -> Iterator[tuple[dict[str, np.ndarray], list[str | None]]]:
    """The endless stream of one host's batches of `size`: the arrays, and the captions.

    Arguments are those of `stored_clips.examples`, and so is the order; `start` counts batches. The
    arrays are codes int32 [b n]; of captions text_ids int32 [b l], and text float32 [b l d] where
    `origin` has an encoder.

    Raises:
        UserError: at once, for missing or stale codes.
    """
    parts = _parts(sources, kind, split, origin, seed)
    pattern = mixture.pattern(list(mixture.rates(sources).values()), seed)
    return _batches(parts, pattern, kind, size, origin, (shard_index, shard_count, start))


def _batches(parts, pattern, kind, size, origin, place):
    tf, (index, count, taken) = tensorflow.tensorflow(), place
    while True:
        numbers = (taken * size + np.arange(size)) * count + index
        source, own = mixture.draws(pattern, numbers)
        records = np.empty(size, object)
        for part in np.unique(source):
            records[source == part] = parts[part].take(own[source == part])
        rows = tf.io.parse_example(tf.constant(records, tf.string), _fields(tf))
        rows = {name: values.numpy() for name, values in rows.items()}
        yield _arrays(rows, kind, parts[0].sizes, origin)
        taken += 1


def _fields(tf):
    there = tf.io.FixedLenFeature([], tf.string)
    known = dict.fromkeys(("codes", "ids", "caption", "captioned"), there)
    return known | {"embeddings": tf.io.FixedLenFeature([], tf.string, default_value="")}


def _arrays(rows, kind: str, sizes: Sizes, origin: Origin):
    joined, count = b"".join(rows["codes"]), getattr(sizes, kind)
    width = len(joined) // (len(rows["codes"]) * count)
    codes = np.frombuffer(joined, f"<u{width}").reshape(-1, count).astype(np.int32)
    arrays: dict[str, np.ndarray] = {"tokens": codes}
    if origin.text:
        flat = np.frombuffer(b"".join(rows["ids"]), "<u4")
        used = np.array([len(row) // 4 for row in rows["ids"]])
        there = np.arange(sizes.text) < used[:, None]
        arrays["text_ids"] = np.zeros(there.shape, np.int32)
        arrays["text_ids"][there] = flat
        if origin.encoder:
            flat = np.frombuffer(b"".join(rows["embeddings"]), EMBEDDING)
            arrays["text"] = np.zeros((*there.shape, sizes.width), np.float32)
            arrays["text"][there] = flat.reshape(-1, sizes.width)
    captions = [
        caption.decode(errors="replace") if known == b"\1" else None
        for caption, known in zip(rows["caption"], rows["captioned"], strict=True)
    ]
    return arrays, captions
