"""Plans and writes the shards of a data set; order and bytes depend on the input alone.

A planned clip takes some twenty bytes of memory: there may be hundreds of millions.
"""

import array
import bisect
import collections
import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phenaki.data import format, records, tensorflow
from phenaki.data.prepare import manifest, spool
from phenaki.io import artifacts, paths
from phenaki.io.quiet import no_logs

PER_HOST = 8  # shards at least: with fewer, hosts read each other's
PER_SHARD = 2**27  # bytes: large enough for a bucket, small enough to write again


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be written, and its records in order."""

    path: Path
    parts: tuple[spool.SpooledRecords, ...]

    def __len__(self) -> int:
        return sum(len(part.offsets) for part in self.parts)

    def fingerprint(self) -> str:
        """Depends on the records: the name of a spool file depends on its content."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(part.path.name.encode() + part.offsets.tobytes() + part.sizes.tobytes())
        return digest.hexdigest()


class SplitIndex(Sequence[tuple[int, int]]):
    """The records of a split in order; as a sequence, (first record, clips) of each item."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._begins: list[int] = []  # number of the first record of each of these files
        self._offsets, self._sizes = array.array("Q"), array.array("I")
        self._firsts = array.array("Q")  # number of the first record of each item

    def add(self, path: Path, clips: Sequence[tuple[int, int]]) -> None:
        """Appends the clips of an item, each (offset, size) in a spool file."""
        if not self._paths or self._paths[-1] != path:
            self._paths.append(path)
            self._begins.append(self.records)
        self._firsts.append(self.records)
        for offset, size in clips:
            self._offsets.append(offset)
            self._sizes.append(size)

    @property
    def records(self) -> int:
        """Number of records."""
        return len(self._offsets)

    @property
    def bytes(self) -> int:
        """Size of all records."""
        return sum(self._sizes)

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, index):
        after = self._firsts[index + 1] if index + 1 < len(self) else self.records
        return self._firsts[index], after - self._firsts[index]

    def between(self, start: int, stop: int) -> tuple[spool.SpooledRecords, ...]:
        """The records `start` to `stop`, grouped by spool file."""
        offsets = np.frombuffer(self._offsets, np.uint64)
        sizes = np.frombuffer(self._sizes, np.uint32)
        parts, file = [], bisect.bisect_right(self._begins, start) - 1
        while start < stop:
            end = self._begins[file + 1] if file + 1 < len(self._begins) else self.records
            end = min(end, stop)
            part = spool.SpooledRecords(self._paths[file], offsets[start:end], sizes[start:end])
            parts.append(part)
            start, file = end, file + 1
        return tuple(parts)


class ShardPlan:
    """Assigns each item to a split, that of its source or one by the hash of its file, in order.

    Args:
        validation: fraction that the hash assigns to validation.
        drop_duplicates: keep only the first of items with the same bytes.
        source_splits: False assigns all items by the hash.
    """

    def __init__(self, validation: float, drop_duplicates: bool, source_splits: bool = True):
        self._source_splits = source_splits
        self.splits: dict[str, SplitIndex] = collections.defaultdict(SplitIndex)
        self._validation = validation
        self._first_of: dict[bytes, str] | None = {} if drop_duplicates else None

    def add(self, clips: Path, result: spool.ItemResult) -> str | None:
        """Adds the clips of an item in the spool file `clips`, or returns why it is skipped."""
        if result.reason:
            return result.reason
        if self._first_of is not None:
            first = self._first_of.setdefault(bytes.fromhex(result.sha256), result.key)
            if first != result.key:
                return f"duplicate: same bytes as {first}"
        own = result.split if self._source_splits else None
        split = own or format.split_of(result.source or result.key, self._validation)
        self.splits[f"{result.kind}_{split}"].add(clips, result.clips)
        return None


def shards(
    splits: dict[str, SplitIndex], directory: Path, hosts: int, max_bytes: int = PER_SHARD
) -> dict[str, list[Shard]]:
    """Divides each split into shards with equal numbers of records.

    There are at least `PER_HOST` shards per host, none is empty, and none has many more than
    `max_bytes` bytes.
    """
    divided = {}
    for name, split in sorted(splits.items()):
        count = max(PER_HOST * hosts, math.ceil(split.bytes / max_bytes))
        count = min(split.records, count)
        names = _template(directory, name)
        bounds = [index * split.records // count for index in range(count + 1)]
        divided[name] = [
            Shard(
                Path(names.sharded_filepath(shard_index=index, num_shards=count)),
                split.between(bounds[index], bounds[index + 1]),
            )
            for index in range(count)
        ]
    return divided


def _template(directory: Path, split: str):
    return tensorflow.datasets().core.ShardedFileTemplate(
        data_dir=directory, dataset_name=format.NAME, split=split, filetype_suffix="tfrecord"
    )


def clear(directory: Path, kept: Iterable[Shard]) -> None:
    """Removes all files of an earlier run except those of the shards `kept`."""
    names = {name for s in kept for name in (s.path.name, s.path.name + records.LENGTHS)}
    for path in directory.iterdir():
        if path.name not in names:
            path.unlink()


def write(shard: Shard, form: format.ClipFormat, marks: Path) -> dict[str, Any]:
    """Writes one TFRecord file; returns its name, records, bytes and SHA-256.

    A shard that an earlier run completed, by its marker in `marks`, is not written again.
    """
    marker, fingerprint = marks / f"{shard.path.name}.json", shard.fingerprint()
    if (written := _finished(marker, fingerprint, shard.path)) is not None:
        return written
    tf, features = tensorflow.tensorflow(), format.features(form)
    with artifacts.atomic(shard.path) as partial:
        with tf.io.TFRecordWriter(os.fspath(partial)) as file:
            for record in itertools.chain.from_iterable(map(spool.read, shard.parts)):
                example = features.serialize_example(record.example())
                # Parsed again, since the field order of a protobuf map is not deterministic.
                message = tf.train.Example.FromString(example)
                file.write(message.SerializeToString(deterministic=True))
        lengths = records.lengths(os.fspath(partial))
    with Path(f"{shard.path}{records.LENGTHS}").open("wb") as file:
        np.save(file, lengths)
    written = {"name": shard.path.name, "records": len(shard)} | artifacts.checksum(shard.path)
    artifacts.mark(marker, {"fingerprint": fingerprint, "noted": written})
    return written


def _finished(marker: Path, fingerprint: str, path: Path) -> dict[str, Any] | None:
    content = artifacts.marked(marker)
    if content is None:
        return None
    whole = paths.size(path) == content["noted"]["bytes"]
    return content["noted"] if whole and content["fingerprint"] == fingerprint else None


def finish(
    directory: Path, form: format.ClipFormat, written: dict[str, list[dict]], settings: dict
) -> None:
    """Makes the directory a TFDS data set and writes its manifest."""
    tfds = tensorflow.datasets()
    info = format.describe(directory, form)
    splits = []
    for split, files in written.items():
        template = _template(directory, split)
        lengths = [file["records"] for file in files]
        size = sum(file["bytes"] for file in files)
        splits.append(tfds.core.SplitInfo(split, lengths, size, template))
    with no_logs():
        info.set_splits(tfds.core.splits.SplitDict(splits))
        info.write_to_directory(directory)
    manifest.write(directory, written, settings)
