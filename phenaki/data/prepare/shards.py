"""What was cut, in one order and in shards: the order and the bytes depend on the input alone.

Of a clip only its place is kept in memory, in some twenty bytes: there may be hundreds of millions.
"""

import array
import bisect
import collections
import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phenaki.data import format, records, tensorflow
from phenaki.data.prepare import ingest
from phenaki.io import artifacts

MANIFEST = "manifest.json"
PER_HOST = 8  # shards at least: fewer, and hosts read each other's
PER_SHARD = 2**27  # bytes: large enough for a bucket, small enough to be done again


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be written, and its records in their order."""

    path: Path
    parts: tuple[ingest.Clips, ...]

    def __len__(self) -> int:
        return sum(len(part.offsets) for part in self.parts)

    def fingerprint(self) -> str:
        """Changes with its records: spool files are named by what is in them."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part.path.name.encode() + part.offsets.tobytes() + part.sizes.tobytes())
        return digest.hexdigest()


class SplitIndex(Sequence[tuple[int, int]]):
    """The records of a split in their order; as a sequence, of each item (first record, clips)."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._begins: list[int] = []  # the first record out of each of these files
        self._offsets, self._sizes = array.array("Q"), array.array("I")
        self._firsts = array.array("Q")  # of each item

    def add(self, path: Path, clips: Sequence[tuple[int, int]]) -> None:
        """Takes the (offset, size) of an item's clips in a spool file."""
        if not self._paths or self._paths[-1] != path:
            self._paths.append(path)
            self._begins.append(self.records)
        self._firsts.append(self.records)
        for offset, size in clips:
            self._offsets.append(offset)
            self._sizes.append(size)

    @property
    def records(self) -> int:
        """Their number."""
        return len(self._offsets)

    @property
    def bytes(self) -> int:
        """Of all records."""
        return sum(self._sizes)

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, index):
        after = self._firsts[index + 1] if index + 1 < len(self) else self.records
        return self._firsts[index], after - self._firsts[index]

    def between(self, start: int, stop: int) -> tuple[ingest.Clips, ...]:
        """The records of that range, by the file they lie in."""
        offsets = np.frombuffer(self._offsets, np.uint64)
        sizes = np.frombuffer(self._sizes, np.uint32)
        parts, file = [], bisect.bisect_right(self._begins, start) - 1
        while start < stop:
            end = self._begins[file + 1] if file + 1 < len(self._begins) else self.records
            end = min(end, stop)
            parts.append(ingest.Clips(self._paths[file], offsets[start:end], sizes[start:end]))
            start, file = end, file + 1
        return tuple(parts)


class ShardPlan:
    """Gives each item its split, the source's own or one by the hash of its key, in the order in
    which they are added.

    Args:
        validation: the share by hash.
        drop_duplicates: of items of the same bytes only the first stays.
    """

    def __init__(self, validation: float, drop_duplicates: bool):
        self.splits: dict[str, SplitIndex] = collections.defaultdict(SplitIndex)
        self._validation = validation
        self._first_of: dict[bytes, str] | None = {} if drop_duplicates else None

    def add(self, clips: Path, outcome: ingest.ItemResult) -> str | None:
        """Takes the clips of an item out of their spool file, or says why not."""
        if outcome.reason:
            return outcome.reason
        if self._first_of is not None:
            first = self._first_of.setdefault(bytes.fromhex(outcome.sha256), outcome.key)
            if first != outcome.key:
                return f"duplicate: same bytes as {first}"
        side = outcome.split or format.split_of(outcome.key, self._validation)
        self.splits[f"{outcome.kind}_{side}"].add(clips, outcome.clips)
        return None


def shards(
    splits: dict[str, SplitIndex], directory: Path, hosts: int, most: int = PER_SHARD
) -> dict[str, list[Shard]]:
    """Cuts each split into shards of as many records each, `PER_HOST` a host or more, none empty,
    of about `most` bytes at most."""
    cut = {}
    for name, split in sorted(splits.items()):
        count = max(PER_HOST * hosts, math.ceil(split.bytes / most))
        count = min(split.records, count)
        names = _template(directory, name)
        bounds = [index * split.records // count for index in range(count + 1)]
        cut[name] = [
            Shard(
                Path(names.sharded_filepath(shard_index=index, num_shards=count)),
                split.between(bounds[index], bounds[index + 1]),
            )
            for index in range(count)
        ]
    return cut


def _template(directory: Path, split: str):
    return tensorflow.datasets().core.ShardedFileTemplate(
        data_dir=directory, dataset_name=format.NAME, split=split, filetype_suffix="tfrecord"
    )


def clear(directory: Path, kept: Iterable[Shard]) -> None:
    """Removes what an earlier run left there, but these shards."""
    names = {name for s in kept for name in (s.path.name, s.path.name + records.LENGTHS)}
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()


def write(shard: Shard, form: format.Format, marks: Path) -> dict[str, Any]:
    """Writes one TFRecord file; returns its name, records, bytes and SHA-256.

    What an earlier run wrote, by a mark in `marks`, is taken as it is.
    """
    mark, fingerprint = marks / f"{shard.path.name}.json", shard.fingerprint()
    if (noted := _noted(mark, fingerprint, shard.path)) is not None:
        return noted
    tf, features = tensorflow.tensorflow(), format.features(form)
    part = shard.path.with_name(f".{shard.path.name}.{os.getpid()}")
    with tf.io.TFRecordWriter(os.fspath(part)) as file:
        for record in itertools.chain.from_iterable(map(ingest.stored, shard.parts)):
            example = features.serialize_example(record.example())
            # Fields in one order: a protobuf map has none of its own.
            message = tf.train.Example.FromString(example)
            file.write(message.SerializeToString(deterministic=True))
    lengths = records.lengths(os.fspath(part))
    part.replace(shard.path)
    with Path(f"{shard.path}{records.LENGTHS}").open("wb") as beside:
        np.save(beside, lengths)
    noted = {"name": shard.path.name, "records": len(shard)} | checksum(shard.path)
    artifacts.write_json(mark, {"fingerprint": fingerprint, "noted": noted})
    return noted


def _noted(mark: Path, fingerprint: str, path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(mark.read_text())
        whole = path.stat().st_size == content["noted"]["bytes"]
    except (OSError, ValueError):
        return None
    return content["noted"] if whole and content["fingerprint"] == fingerprint else None


def checksum(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def finish(
    directory: Path, form: format.Format, written: dict[str, list[dict]], config: dict
) -> None:
    """Makes the directory a TFDS data set and writes its manifest.

    The manifest has no times and no paths: the same input and config give the same manifest.
    """
    tfds = tensorflow.datasets()
    info = format.describe(directory, form)
    splits = []
    for split, shards_of in written.items():
        template = _template(directory, split)
        lengths = [file["records"] for file in shards_of]
        size = sum(file["bytes"] for file in shards_of)
        splits.append(tfds.core.SplitInfo(split, lengths, size, template))
    with tensorflow.quiet_logs():
        info.set_splits(tfds.core.splits.SplitDict(splits))
        info.write_to_directory(directory)
    known = {
        file["name"]: {name: file[name] for name in ("bytes", "sha256")}
        for shards_of in written.values()
        for file in shards_of
    }
    config_text = json.dumps(config, sort_keys=True)
    manifest = {
        "config": config,
        "config_sha256": hashlib.sha256(config_text.encode()).hexdigest(),
        "records": {split: sum(f["records"] for f in of) for split, of in written.items()},
        "shards": {split: len(of) for split, of in written.items()},
        "files": {
            path.name: known.get(path.name) or checksum(path)
            for path in sorted(directory.iterdir())
            if path.is_file()
        },
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
