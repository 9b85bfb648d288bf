"""Stored tokens on disk: TFRecord files, their completion markers, and a manifest.

One directory holds the tokens of one data set. NAME has the tokens of the data set's file NAME,
NAME.done marks it complete, and codes.json, written last, lists all files and what they were made
with. On disk the tokens are called "codes", in the manifest's name and in the records.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from phenaki.data import records, tensorflow
from phenaki.data.clip_records import Spec
from phenaki.errors import UserError
from phenaki.io import artifacts, paths, verify
from phenaki.io.paths import PathLike

MANIFEST = "codes.json"
SCHEMA = 1
MORE = "more_"  # before the names of what captions after the first have
EMBEDDING = ml_dtypes.bfloat16  # dtype of stored embeddings
DONE = ".done"
# Of incomplete files: `artifacts.atomic` writes the first, older releases wrote the second.
_HALF = re.compile(r"\.(.+?)(?:\.done|\.lengths\.npy)?\.[0-9a-f]{8}\.partial|(.+)\.part")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What tokens and ids depend on; files of another origin are stale. "" where not applicable."""

    tokenizer: str
    pixels: str
    text: str
    encoder: str  # of embeddings

    @classmethod
    def of(cls, fingerprint: str, spec: Spec, text: Any) -> "Origin":
        """The origin of what a run trains on.

        Args:
            fingerprint: of the tokenizer's parameters.
            spec: frames, height, width, fps.
            text: `config.text`; None without captions.
        """
        return cls(
            tokenizer=fingerprint,
            pixels=f"{spec.frames}x{spec.height}x{spec.width} at {spec.fps:g} fps",
            text=f"{vocabulary_facts(text.vocabulary)}, {text.length} ids" if text else "",
            encoder=_encoder(text) if text and text.cached else "",
        )

    def digest(self) -> str:
        """16 hex digits, stored in every record."""
        return _digest(json.dumps(dataclasses.asdict(self), sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def vocabulary_facts(name: str) -> str:
    """Identifies a vocabulary by its content, independent of its directory."""
    _, colon, rest = name.partition(":")
    given = name if paths.is_remote(name) or not colon else rest
    if not paths.is_file(given):
        return name
    file = paths.path(given)
    return f"{file.name} {_digest(file.read_bytes())}"


def _encoder(text) -> str:
    """Identifies a text encoder by its sizes and the end of its checkpoint path, which may move."""
    fields = {k: v for k, v in text.items() if k not in ("vocabulary", "cached")}
    fields["weights"] = "/".join(text.weights.rstrip("/").split("/")[-2:])
    return f"{fields['weights']} {_digest(json.dumps(fields, sort_keys=True).encode())}"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Number of tokens of a clip and of an image; ids and width of a caption (0 without)."""

    video: int
    image: int
    text: int
    width: int


class Caption(NamedTuple):
    """A caption with its ids [l], padded with 0, and their embeddings [l d], or None."""

    text: bytes
    ids: np.ndarray
    embeddings: np.ndarray | None

    def arrays(self) -> dict[str, bytes]:
        """As little-endian bytes, without padding."""
        used = int((self.ids > 0).sum())
        stored = {"caption": self.text, "ids": self.ids[:used].astype("<u4").tobytes()}
        if self.embeddings is not None:
            stored["embeddings"] = self.embeddings[:used].astype(EMBEDDING).tobytes()
        return stored


def example(
    tokens: np.ndarray, captions: Sequence[Caption], captioned: bool, key: bytes, origin: str
) -> bytes:
    """Serializes one record: a tf.train.Example whose arrays are little-endian bytes.

    Args:
        tokens: [n].
        captions: at least one; a blank one if the clip has none (not `captioned`).
    """
    tf = tensorflow.tensorflow()
    values = {
        "codes": [tokens.astype("<u4" if tokens.dtype.itemsize > 2 else "<u2").tobytes()],
        "captioned": [b"\1" if captioned else b"\0"],
        "key": [key],
        "origin": [origin.encode()],
    }
    values |= {name: [array] for name, array in captions[0].arrays().items()}
    for caption in captions[1:]:
        for name, array in caption.arrays().items():
            values.setdefault(MORE + name, []).append(array)
    feature = {k: tf.train.Feature(bytes_list={"value": v}) for k, v in values.items()}
    message = tf.train.Example(features=tf.train.Features(feature=feature))
    return message.SerializeToString(deterministic=True)


def write_file(path: str, examples: Iterable[bytes], origin: Origin, source_sha256: str) -> None:
    """Writes a file of tokens, the lengths of its records, and its completion marker.

    Args:
        source_sha256: of the file of the data set that was encoded.
    """
    tf, lengths = tensorflow.tensorflow(), []
    with artifacts.atomic(path) as partial:
        with tf.io.TFRecordWriter(os.fspath(partial)) as writer:
            for record in examples:
                writer.write(record)
                lengths.append(len(record))
        made = artifacts.checksum(partial)
        with artifacts.atomic(path + records.LENGTHS) as other, other.open("wb") as file:
            np.save(file, np.array(lengths, np.uint32))
    key = {
        "name": os.path.basename(path),
        "records": len(lengths),
        "origin": origin.digest(),
        "input": source_sha256,
    }
    artifacts.mark(path + DONE, key | made, indent=2)


def is_complete(path: str, origin: Origin, source_sha256: str) -> bool:
    """Whether `path` is complete, of this origin, and made from that content."""
    key = artifacts.marked(path + DONE)
    return (
        key is not None
        and key.get("origin") == origin.digest()
        and key.get("input") == source_sha256
        and paths.size(path) == key.get("bytes")
        and paths.is_file(path + records.LENGTHS)
    )


def finish(directory: str, outputs: Mapping[str, list[str]], origin: Origin, sizes: Sizes) -> None:
    """Removes files that belong to no source file any more, then writes the manifest.

    Args:
        outputs: the files of each split; all are complete.

    Raises:
        UserError: a file is missing.
    """
    every = [path for of_split in outputs.values() for path in of_split]
    for name in _left(directory, {os.path.basename(path) for path in every}):
        paths.path(os.path.join(directory, name)).unlink(missing_ok=True)
    found = records.parallel_map(lambda path: artifacts.marked(path + DONE), every)
    markers = dict(zip(every, found, strict=True))
    files: dict[str, list[dict]] = {}
    for split, of_split in outputs.items():
        for path in of_split:
            if (key := markers[path]) is None:
                raise UserError(f"{path}: missing; run scripts/encode_dataset.py again.")
            if key["origin"] != origin.digest():
                raise UserError(
                    f"{path}: was encoded with another tokenizer or config than the others, as by "
                    "a host of this job; run scripts/encode_dataset.py again."
                )
            files.setdefault(split, []).append(key)
    manifest = {
        "schema": SCHEMA,
        "origin": dataclasses.asdict(origin),
        "sizes": dataclasses.asdict(sizes),
        "records": {split: sum(key["records"] for key in keys) for split, keys in files.items()},
        "files": files,
    }
    artifacts.write_json(os.path.join(directory, MANIFEST), verify.signed(manifest), indent=2)


def _left(directory: str, names: set[str]) -> Iterator[str]:
    """What earlier runs left: files that their own markers list, and halves of those `names`."""
    there = set(paths.names(directory))
    for name in sorted(there):
        whole = _HALF.fullmatch(name)
        if whole and (whole[1] or whole[2]) in names:
            yield name
        stem = name.removesuffix(DONE)
        if stem == name or stem in names:
            continue
        marker = artifacts.marked(os.path.join(directory, name)) or {}
        if marker.get("name") == stem and {"origin", "input"} <= marker.keys():
            yield from there & {stem, stem + records.LENGTHS}
            yield name  # last: it lists the others


def read_manifest(directory: PathLike) -> dict[str, Any]:
    """The manifest of a directory of stored tokens.

    Raises:
        UserError: no such directory, or it is not complete yet; or the manifest is damaged.
    """
    path = os.path.join(directory, MANIFEST)
    if not paths.is_file(path):
        raise UserError(
            f"{directory}: has no {MANIFEST}: not stored tokens, or not all of them yet; "
            "scripts/encode_dataset.py writes and resumes them."
        )
    remedy = "encode it again with the same command"
    manifest, _ = verify.check_facts(paths.path(path), artifacts.read_dict(path), remedy)
    if (schema := manifest.get("schema")) != SCHEMA:
        raise UserError(f"{path}: schema {schema} is not {SCHEMA}; encode it again.")
    return manifest


def check_origin(directory: PathLike, manifest: dict[str, Any], origin: Origin) -> None:
    """Raises `UserError`, naming both, if the tokens are of another origin."""
    stored = manifest["origin"]
    for field, now in dataclasses.asdict(origin).items():
        unused = field == "encoder" and not now  # stored embeddings that this run does not read
        if stored[field] != now and not unused:
            raise UserError(
                f"{directory}: is stale: encoded with {field} {stored[field] or 'none'!r}; this "
                f"run has {now or 'none'!r}. scripts/encode_dataset.py with this run's config and "
                "tokenizer encodes again what changed."
            )
