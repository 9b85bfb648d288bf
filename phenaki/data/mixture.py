"""Mixture and shuffle as pure index maps: example number -> source -> record.

Example g of a job is a function of the seed and g alone, so a stream starts anywhere at no cost
and does not depend on the number of hosts. A mixture takes its sources in a fixed pattern of
`PERIOD` examples, in exact proportion; each source is permuted anew in every epoch.
"""

import dataclasses
import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from phenaki.data.host_rows import ALL, HostRows
from phenaki.errors import UserError

# Pairs for paths with a dot, which config files do not accept as a key.
SourceRates = Mapping[str, float | int] | Sequence[tuple[str, float | int]] | str | Path
PERIOD = 1000  # examples in which a mixture meets its rates


@dataclasses.dataclass(frozen=True)
class Stream:
    """Part of an endless stream: one host's rows of every batch from example `start` of the job on.

    A reader that takes all examples one by one is a host with batches of one row. The mixture
    begins at example `since` of the job, after `taken` examples of each source, whose
    order depends on the seed and its entry of `indices` (`mixture_state.Source`).
    """

    start: int = 0
    rows: HostRows = ALL
    shuffle: bool = True
    since: int = 0
    taken: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()

    def taken_of(self, place: int) -> int:
        """`taken` of a source by its place in the mixture; by default 0."""
        return self.taken[place] if self.taken else 0

    def index_of(self, place: int) -> int:
        """The index of a source by its place in the mixture; by default its place."""
        return self.indices[place] if self.indices else place


def rates(sources: SourceRates) -> dict[str, float]:
    """Source -> rate; a single path is the whole mixture.

    Raises:
        UserError: no source, or a rate that is not above 0.
    """
    if isinstance(sources, str | Path):
        sources = {str(sources): 1.0}
    result = {str(path): float(rate) for path, rate in dict(sources).items()}
    if not result or not all(np.isfinite(rate) and rate > 0 for rate in result.values()):
        raise UserError(f"config.data.sources={result}: needs data sets with rates above 0.")
    return result


def pattern(rate: list[float], seed: int) -> np.ndarray:
    """The source of each example in a period; each source occurs at least once.

    Occurrences of a source are jittered around an even spacing: every step, of one host or of
    several, contains very nearly the rates of the mixture.
    """
    if len(rate) == 1:
        return np.zeros(1, np.int64)
    exact = np.array(rate) / np.sum(rate) * PERIOD
    counts = np.maximum(1, np.floor(exact).astype(int))
    missing = max(0, PERIOD - int(counts.sum()))
    for index in np.argsort(counts - exact, kind="stable")[:missing]:
        counts[index] += 1  # largest remainders
    chance = random(seed, "pattern")
    times = [(np.arange(count) + chance.random(count)) / count for count in counts]
    return np.repeat(np.arange(len(rate)), counts)[np.argsort(np.concatenate(times))]


def draws(pattern: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps example numbers of the job to (source, example number within that source)."""
    source, own = pattern[numbers % len(pattern)], np.zeros(len(numbers), np.int64)
    for index in np.unique(source):
        mine = pattern == index
        before = np.cumsum(mine) - mine  # occurrences of this source earlier in the period
        here = numbers[source == index]
        own[source == index] = here // len(pattern) * mine.sum() + before[here % len(pattern)]
    return source, own


def random(seed: int, *path: int | str) -> np.random.Generator:
    """An independent generator for every seed and path."""
    words = [int.from_bytes(p.encode()[:8]) if isinstance(p, str) else p for p in path]
    return np.random.default_rng([seed, *words])


class Order:
    """Maps the example number of a source to one of its `count` records.

    Each record occurs once per epoch, in a new order in every epoch; in stored order without
    `shuffle`.
    """

    def __init__(self, count: int, seed: Sequence[int], shuffle: bool = True):
        self._count, self._seed, self._shuffle = count, seed, shuffle
        self._of_captions = zlib.crc32(repr(tuple(seed)).encode())
        self._of = functools.lru_cache(maxsize=2)(self._order)  # two: a batch may span epochs

    def __call__(self, number: int) -> int:
        epoch, index = divmod(number, self._count)
        return int(self._of(epoch)[index]) if self._shuffle else index

    def caption(self, number: int) -> int:
        """Which caption of its record an example has, modulo their number: each in its epoch.

        Every record begins with a random one, so that an epoch has first and last captions alike.
        """
        record = self(number).to_bytes(8, "little")
        return zlib.crc32(record, self._of_captions) + number // self._count

    def _order(self, epoch: int) -> np.ndarray:
        order = random(*self._seed, "order", epoch).permutation(self._count)
        return order.astype(np.uint32)
