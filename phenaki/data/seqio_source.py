"""seqio tasks and mixtures over data sets on disk, as a stream that can start anywhere.

Example number g of the whole job is a function of the seed and g alone: not of the number of hosts,
and not of what was read before. A mixture draws its sources in a fixed pattern of 1000, in exact
proportion; each source goes through its records in a new order every epoch. Only record numbers are
shuffled, never bytes or pixels, and skipping costs nothing.
"""

import atexit
import dataclasses
import functools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from phenaki.data import mixture as mixing
from phenaki.data import tensorflow

ENDLESS = 2**62
RAM_BUDGET = 2**29  # bytes of decoded clips that TensorFlow may hold ready


@dataclasses.dataclass(frozen=True)
class Stream:
    """Which part of the endless stream: from this host's example `start` on."""

    start: int = 0
    shard_index: int = 0
    shard_count: int = 1
    shuffle: bool = True

    def numbers(self):
        """tf.data of the job-wide numbers of this host's examples."""
        first = self.start * self.shard_count + self.shard_index
        return tensorflow.tensorflow().data.Dataset.range(first, ENDLESS, self.shard_count)


@runtime_checkable
class Part(Protocol):
    """What a source stores: files, and numbers of its examples -> their features."""

    @property
    def paths(self) -> list[str]: ...
    def decode(self, numbers): ...


def mix(
    name: str,
    parts: Sequence[Part],
    sources: mixing.Sources,
    features: dict,
    split: str,
    seed: int,
    stream: Stream,
):
    """Adds the seqio mixture `name` of `parts` at the rates of `sources`, as `register` does."""
    seqio = tensorflow.seqio()
    rates = list(mixing.rates(sources).values())
    pattern = mixing.pattern(rates, seed)
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        for old in [n for n in registry.names() if n == name or n.startswith(f"{name}:")]:
            registry.remove(old)
    for index, part in enumerate(parts):
        seqio.TaskRegistry.add(
            f"{name}:{index}",
            source=_source(split, stream, pattern, index, part.paths),
            preprocessors=[part.decode],
            output_features=features,
            shuffle_buffer_size=None,  # the source is in random order already
        )
    return seqio.MixtureRegistry.add(
        name,
        [(f"{name}:{index}", rate) for index, rate in enumerate(rates)],
        sample_fn=functools.partial(_choose, stream=stream, pattern=pattern),
    )


def dataset(mixture, split: str, seed: int, stream: Stream):
    """The endless tf.data of a mixture of `mix`, always in the same order."""
    made = mixture.get_dataset(
        sequence_length=None,
        split=split,
        shuffle=stream.shuffle,
        seed=seed,
        shard_info=tensorflow.seqio().ShardInfo(stream.shard_index, stream.shard_count),
        num_epochs=1,  # the sources themselves are endless
        trim_output_features=False,
        try_in_mem_cache=False,
    )
    options = tensorflow.tensorflow().data.Options()
    options.deterministic = True
    options.autotune.ram_budget = RAM_BUDGET
    return made.with_options(options)


class Examples:
    """Iterator over a tf.data as numpy arrays, ended before Python itself ends.

    TensorFlow's threads that call Python then would never come back, nor would the process end.
    """

    _all: weakref.WeakSet["Examples"] = weakref.WeakSet()

    def __init__(self, data):
        self._iterator = data.as_numpy_iterator()
        self._all.add(self)

    def __iter__(self) -> "Examples":
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._iterator)

    def close(self) -> None:
        """Frees TensorFlow's iterator, which waits for its threads."""
        self._iterator = iter(())


@atexit.register
def _close_all() -> None:
    for one in list(Examples._all):
        one.close()


def _source(split: str, stream: Stream, pattern: np.ndarray, index: int, paths: list[str]):
    """A seqio source of this source's example numbers, as drawn by the mixture."""
    tf = tensorflow.tensorflow()
    if TYPE_CHECKING:
        import seqio
    else:
        seqio = tensorflow.seqio()
    mine = pattern == index
    before = np.cumsum(mine) - mine  # draws of this source earlier in the period

    class Numbers(seqio.DataSource):
        supports_arbitrary_sharding = True

        def list_shards(self, split):
            return paths

        def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, **unused):
            numbers = stream.numbers().filter(lambda n: tf.constant(mine)[n % len(pattern)])
            return numbers.map(
                lambda n: n // len(pattern) * mine.sum() + tf.constant(before)[n % len(pattern)]
            )

    return Numbers([split], caching_permitted=False, performs_internal_shuffling=True)


def _choose(datasets, rates, seed, *, stream: Stream, pattern: np.ndarray):
    tf = tensorflow.tensorflow()
    choices = stream.numbers().map(lambda n: tf.constant(pattern)[n % len(pattern)])
    return tf.data.Dataset.choose_from_datasets(datasets, choices)
