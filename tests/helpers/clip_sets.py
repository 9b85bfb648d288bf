"""Writes small clip data sets without decoding media."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from phenaki.data import format, tensorflow
from phenaki.io.quiet import no_logs


def write(
    directory: Path,
    form: format.ClipFormat,
    records: Mapping[str, Sequence[format.ClipRecord]],
    per_shard: int = 512,
) -> Path:
    """Makes `directory` a data set of `records` by split, in shards of `per_shard` records."""
    directory.mkdir(parents=True, exist_ok=True)
    info = format.describe(directory, form)
    with no_logs():
        writer = tensorflow.datasets().core.SequentialWriter(info, max_examples_per_shard=per_shard)
        writer.initialize_splits(list(records))
        writer.add_examples({split: [r.example() for r in of] for split, of in records.items()})
        writer.close_all()
    return directory
