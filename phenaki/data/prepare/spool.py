"""Spool files: the encoded clips of each work unit, kept on disk until they are written to shards.

NAME.clips has the pickled records of a unit and NAME.done marks it complete. NAME depends on what
the unit holds and on how it is decoded: a later run reuses it.
"""

import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt32, UInt64

from phenaki.data.format import ClipRecord
from phenaki.data.prepare.items import Skipped, Split
from phenaki.io import artifacts


@dataclasses.dataclass(frozen=True, slots=True)
class ItemResult:
    """The clips of one item, of kind `kind`, each (offset, size) in the spool; or a `reason`.

    `static` counts clips that were filtered for lack of motion, `slow` those whose source has fewer
    frames a second than the set, so that they repeat. A missing caption or flag is not a
    `reason` but a `Skipped` in `UnitResult.problems`. `source` is the key of the file; `sha256` is
    equal for items of the same pixels.
    """

    key: str
    kind: str
    captioned: bool = False
    split: Split | None = None
    sha256: str = ""
    clips: tuple[tuple[int, int], ...] = ()
    static: int = 0
    reason: str | None = None
    source: str = ""
    slow: int = 0


@dataclasses.dataclass(frozen=True)
class UnitResult:
    """The results of a unit; `clips` is its spool file."""

    clips: Path
    items: tuple[ItemResult, ...]
    problems: tuple[Skipped, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class SpooledRecords:
    """Records in one spool file: their offsets and sizes in bytes."""

    path: Path
    offsets: UInt64[np.ndarray, " n"]
    sizes: UInt32[np.ndarray, " n"]


def path(directory: Path, name: str) -> Path:
    """The spool file of the unit `name`."""
    return directory / f"{name}.clips"


def finish(
    clips: Path, items: Sequence[ItemResult], problems: Sequence[Skipped], seconds: float
) -> UnitResult:
    """Marks a spool file complete."""
    result = UnitResult(clips, tuple(items), tuple(problems), seconds)
    key = {
        "clips": clips.stat().st_size,
        "outcomes": [dataclasses.asdict(item) for item in items],
        "problems": [dataclasses.asdict(problem) for problem in problems],
        "seconds": seconds,
    }
    artifacts.mark(clips.with_suffix(".done"), key)
    return result


def finished(clips: Path) -> UnitResult | None:
    """What an earlier run has stored in a spool file; None if it is not complete."""
    key = artifacts.marked(clips.with_suffix(".done"))
    if key is None or not clips.is_file() or clips.stat().st_size != key["clips"]:
        return None
    items = tuple(
        ItemResult(**item | {"clips": tuple(tuple(place) for place in item["clips"])})
        for item in key["outcomes"]
    )
    problems = tuple(Skipped(**problem) for problem in key["problems"])
    return UnitResult(clips, items, problems, key["seconds"])


def read(part: SpooledRecords) -> Iterator[ClipRecord]:
    """Reads the records back."""
    with part.path.open("rb") as file:
        for offset, size in zip(part.offsets.tolist(), part.sizes.tolist(), strict=True):
            file.seek(offset)
            yield pickle.loads(file.read(size))
