"""seqio tasks and mixtures over `mixture`'s index maps, as tf.data streams that start anywhere.

Importing this module imports seqio and TensorFlow: callers import it where they need it.
Only record numbers are shuffled, never bytes or pixels.
"""

import atexit
import functools
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from phenaki.data import mixture, tensorflow
from phenaki.data.mixture import Stream

if TYPE_CHECKING:
    import seqio
else:
    seqio = tensorflow.seqio()

ENDLESS = 2**62
RAM_BUDGET = 2**29  # bytes of decoded clips that tf.data may prefetch

# Clips and images are opened by a thread each: seqio's registries are global, and Python 3.11's
# `ast`, by which TensorFlow traces functions, fails where two threads are inside it.
_OPENING = threading.Lock()


@runtime_checkable
class ExampleSource(Protocol):
    """One source of a mixture: its files, and a map from its example numbers to features."""

    @property
    def paths(self) -> list[str]: ...
    def decode(self, numbers): ...


def _one_at_a_time(function):
    @functools.wraps(function)
    def locked(*args, **kwargs):
        with _OPENING:
            return function(*args, **kwargs)

    return locked


@_one_at_a_time
def mix(
    name: str,
    sources: Sequence[ExampleSource],
    rates: Sequence[float],
    features: dict,
    split: str,
    seed: int,
    stream: Stream,
):
    """Registers the mixture `name` of `sources` at `rates`, and its tasks `name:0`, `name:1`, ...

    An older mixture and tasks of that name are replaced.
    """
    pattern = mixture.pattern(list(rates), seed)
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        for old in [n for n in registry.names() if n == name or n.startswith(f"{name}:")]:
            registry.remove(old)
    for index, source in enumerate(sources):
        seqio.TaskRegistry.add(
            f"{name}:{index}",
            source=_ExampleNumbers(split, stream, pattern, index, source.paths),
            preprocessors=[source.decode],
            output_features=features,
            shuffle_buffer_size=None,  # the example numbers are mapped to shuffled records
        )
    return seqio.MixtureRegistry.add(
        name,
        [(f"{name}:{index}", rate) for index, rate in enumerate(rates)],
        sample_fn=functools.partial(_choose, stream=stream, pattern=pattern),
    )


@_one_at_a_time
def dataset(mixture, split: str, seed: int, stream: Stream):
    """The endless tf.data of a mixture of `mix`, always in the same order."""
    made = mixture.get_dataset(
        sequence_length=None,
        split=split,
        shuffle=stream.shuffle,
        seed=seed,
        num_epochs=1,  # the sources themselves are endless
        trim_output_features=False,
        try_in_mem_cache=False,
    )
    options = tensorflow.tensorflow().data.Options()
    options.deterministic = True
    options.autotune.ram_budget = RAM_BUDGET
    return made.with_options(options)


class NumpyExamples:
    """Iterator over a tf.data as numpy arrays, closed before the interpreter shuts down.

    Otherwise TensorFlow's threads that call Python would block forever, and the process with them.
    """

    _open: weakref.WeakSet["NumpyExamples"] = weakref.WeakSet()

    def __init__(self, data):
        _close_at_exit()
        self._iterator = data.as_numpy_iterator()
        self._open.add(self)

    def __iter__(self) -> "NumpyExamples":
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._iterator)

    def close(self) -> None:
        """Frees TensorFlow's iterator, which joins its threads."""
        self._iterator = iter(())

    @classmethod
    def close_all(cls) -> None:
        """Closes every iterator that is still referenced."""
        for examples in list(cls._open):
            examples.close()


@functools.cache
def _close_at_exit() -> None:
    """Registers `NumpyExamples.close_all` once, when the first stream opens."""
    atexit.register(NumpyExamples.close_all)


def _job_numbers(stream: Stream):
    """tf.data of the example numbers of this host within the job, from the mixture's first on."""
    tf, rows, start = tensorflow.tensorflow(), stream.rows, stream.start - stream.since
    if len(rows) == rows.total:
        return tf.data.Dataset.range(start, ENDLESS)
    count, first = len(rows), rows.numbers(start)
    # Example i of this host is row i % count of batch i // count.
    return tf.data.Dataset.range(ENDLESS).map(
        lambda i: tf.constant(first)[i % count] + i // count * rows.total
    )


class _ExampleNumbers(seqio.DataSource):
    """The example numbers of source `index`: those that `mixture.draws` assigns to it."""

    supports_arbitrary_sharding = True

    def __init__(
        self, split: str, stream: Stream, pattern: np.ndarray, index: int, paths: list[str]
    ):
        super().__init__([split], caching_permitted=False, performs_internal_shuffling=True)
        self._stream, self._paths = stream, paths
        self._mine = pattern == index
        self._taken = stream.taken_of(index)
        self._before = np.cumsum(self._mine) - self._mine  # its examples earlier in the period

    def list_shards(self, split):
        return self._paths

    def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, **unused):
        tf, mine, before = tensorflow.tensorflow(), self._mine, self._before + self._taken
        numbers = _job_numbers(self._stream).filter(lambda n: tf.constant(mine)[n % len(mine)])
        return numbers.map(
            lambda n: n // len(mine) * mine.sum() + tf.constant(before)[n % len(mine)]
        )


def _choose(datasets, rates, seed, *, stream: Stream, pattern: np.ndarray):
    tf = tensorflow.tensorflow()
    choices = _job_numbers(stream).map(lambda n: tf.constant(pattern)[n % len(pattern)])
    return tf.data.Dataset.choose_from_datasets(datasets, choices)
