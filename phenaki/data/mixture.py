"""Which source an example comes from, and which record: any place can be computed alone."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from phenaki.errors import UserError

# As pairs where a path has a dot: config files take no such key.
Sources = Mapping[str, float | int] | Sequence[tuple[str, float | int]] | str | Path
PERIOD = 1000  # draws in which a mixture meets its rates


def rates(sources: Sources) -> dict[str, float]:
    """Source -> rate; a lone path is all of it.

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
    """The source of each draw in a period; each source at least once.

    Shuffled, but a draw stays in its share of the period, so that every step, and of several hosts
    each, has very nearly the mixture's shares.
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
    """(the source of these examples of the whole job, their numbers among that source's own)."""
    source, own = pattern[numbers % len(pattern)], np.zeros(len(numbers), np.int64)
    for index in np.unique(source):
        mine = pattern == index
        before = np.cumsum(mine) - mine  # draws of this source earlier in the period
        here = numbers[source == index]
        own[source == index] = here // len(pattern) * mine.sum() + before[here % len(pattern)]
    return source, own


def random(seed: int, *path: int | str) -> np.random.Generator:
    """A generator of its own for every seed and path."""
    words = [int.from_bytes(p.encode()[:8]) if isinstance(p, str) else p for p in path]
    return np.random.default_rng([seed, *words])


class Order:
    """Example number -> record, of `count`: each once an epoch, in a new order every epoch."""

    def __init__(self, count: int, seed: Sequence[int], shuffle: bool = True):
        self._count, self._seed, self._shuffle = count, seed, shuffle
        self._of = functools.lru_cache(maxsize=2)(self._order)  # neighbours of an epoch's end

    def __call__(self, number: int) -> int:
        epoch, index = divmod(number, self._count)
        return int(self._of(epoch)[index]) if self._shuffle else index

    def _order(self, epoch: int) -> np.ndarray:
        order = random(*self._seed, "order", epoch).permutation(self._count)
        return order.astype(np.uint32)
