"""What was cut, in one order and in shards: the order and the bytes depend on the input alone."""

import collections
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from phenaki.data import builder, ingest, lazy, records

MANIFEST = "manifest.json"
PER_HOST = 8  # shards at least: fewer, and hosts read each other's
PER_SHARD = 512  # records at most

Place = tuple[Path, tuple[int, int]]  # a spool file, and where in it the record lies


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be written, and its records."""

    path: Path
    places: tuple[Place, ...]


@dataclasses.dataclass
class Plan:
    """The records of each split in the order of their keys; of each item used, (split, first
    record, clips); `left` are items that give no clip, with their reasons."""

    splits: dict[str, list[Place]]
    items: dict[str, tuple[str, int, int]]
    left: list[ingest.Outcome]


def plan(done: Iterable[ingest.Done], validation: float, drop_duplicates: bool) -> Plan:
    """Orders all items by key and gives each its split: the source's own, or by hash of the key.

    Args:
        validation: the share by hash.
        drop_duplicates: of items of the same bytes only the first in this order stays.
    """
    every = [(outcome.key, part.clips, outcome) for part in done for outcome in part.outcomes]
    every.sort(key=lambda entry: entry[0])  # stable: of equal names the first unit's
    made = Plan(collections.defaultdict(list), {}, [])
    first_of: dict[str, str] = {}
    for key, clips, outcome in every:
        reason = outcome.reason
        if key in made.items:
            reason = "second of this name"
        elif drop_duplicates and reason is None and outcome.sha256 in first_of:
            reason = f"duplicate: same bytes as {first_of[outcome.sha256]}"
        if reason:
            made.left.append(dataclasses.replace(outcome, reason=reason))
            continue
        first_of.setdefault(outcome.sha256, key)
        split = f"{outcome.kind}_{outcome.split or builder.split_of(key, validation)}"
        records = made.splits[split]
        made.items[key] = (split, len(records), len(outcome.clips))
        records += [(clips, place) for place in outcome.clips]
    return made


def shards(made: Plan, directory: Path, hosts: int) -> dict[str, list[Shard]]:
    """Cuts each split into shards of equal length, `PER_HOST` a host or more, none empty."""
    cut = {}
    for split, places in sorted(made.splits.items()):
        count = min(len(places), max(PER_HOST * hosts, math.ceil(len(places) / PER_SHARD)))
        names = _template(directory, split)
        bounds = [index * len(places) // count for index in range(count + 1)]
        cut[split] = [
            Shard(
                Path(names.sharded_filepath(shard_index=index, num_shards=count)),
                tuple(places[bounds[index] : bounds[index + 1]]),
            )
            for index in range(count)
        ]
    return cut


def _template(directory: Path, split: str):
    return lazy.datasets().core.ShardedFileTemplate(
        data_dir=directory, dataset_name=builder.NAME, split=split, filetype_suffix="tfrecord"
    )


def write(shard: Shard, form: builder.Format) -> dict[str, Any]:
    """Writes one TFRecord file; returns its name, records, bytes and SHA-256."""
    tf, features = lazy.tensorflow(), builder.features(form)
    part = shard.path.with_name(f".{shard.path.name}.{os.getpid()}")
    with tf.io.TFRecordWriter(os.fspath(part)) as file:
        for clips, place in shard.places:
            record = ingest.stored(clips, place)
            example = features.serialize_example(record.example())
            # Fields in one order: a protobuf map has none of its own.
            message = tf.train.Example.FromString(example)
            file.write(message.SerializeToString(deterministic=True))
    lengths = records.lengths(os.fspath(part))
    part.replace(shard.path)
    with Path(f"{shard.path}{records.LENGTHS}").open("wb") as beside:
        np.save(beside, lengths)
    return {"name": shard.path.name, "records": len(shard.places)} | checksum(shard.path)


def checksum(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def finish(
    directory: Path, form: builder.Format, written: dict[str, list[dict]], config: dict
) -> None:
    """Makes the directory a TFDS data set and writes its manifest.

    The manifest has no times and no paths: the same input and config give the same manifest.
    """
    tfds = lazy.datasets()
    info = builder.describe(directory, form)
    splits = []
    for split, files in written.items():
        template = _template(directory, split)
        lengths = [file["records"] for file in files]
        size = sum(file["bytes"] for file in files)
        splits.append(tfds.core.SplitInfo(split, lengths, size, template))
    with lazy.quiet_logs():
        info.set_splits(tfds.core.splits.SplitDict(splits))
        info.write_to_directory(directory)
    config_text = json.dumps(config, sort_keys=True)
    manifest = {
        "config": config,
        "config_sha256": hashlib.sha256(config_text.encode()).hexdigest(),
        "records": {split: sum(f["records"] for f in files) for split, files in written.items()},
        "shards": {split: len(files) for split, files in written.items()},
        "files": {
            path.name: checksum(path) for path in sorted(directory.iterdir()) if path.is_file()
        },
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
