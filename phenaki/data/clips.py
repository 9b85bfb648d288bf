"""Prepared clips and images as endless streams of pixels and captions."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from phenaki.data import format, tensorflow
from phenaki.data import mixture as mixing
from phenaki.data.clip_records import Spec, check, parse, stored_split
from phenaki.data.host_rows import ALL, HostRows
from phenaki.data.mixture import Stream
from phenaki.data.mixture_state import MixtureState, stream_of
from phenaki.data.records import THREADS, Records
from phenaki.errors import one_of

WHOLE = Stream()
# config.data.captions: which of the captions of a clip an example has.
SAMPLED, FIRST = "sampled", "first"
CAPTIONS = (SAMPLED, FIRST)


def examples(
    sources: mixing.SourceRates,
    *,
    split: str,
    kind: str,
    spec: Spec,
    seed: int,
    rows: HostRows = ALL,
    start: int = 0,
    shuffle: bool = True,
    state: MixtureState | None = None,
    captions: str = SAMPLED,
) -> Iterator[dict[str, Any]]:
    """The endless stream of one host's examples.

    Args:
        sources: directories of data sets and their rates, such as {"/data/a": 0.8, "/data/b": 0.2};
            or such pairs, or a single path. Their order decides the stream, their paths do not.
        split: "train" or "validation".
        kind: "video" for clips of `spec.frames` frames, "image" for images (one frame).
        spec: frames, height, width, fps. Stored clips may be longer or larger: a random crop in
            space and time is taken, determined by the seed and the example; with `shuffle=False`
            the first frames and the centre.
        seed: of the order, of the mixture and of the random crops.
        rows: of every batch, those that this host loads; by default it loads all examples.
        start: the example of the job at which the first batch starts; O(1).
        shuffle: False reads in stored order, for evaluation; `size` is the number of examples.
        state: of these sources, in a run that had others before; by default none were.
        captions: of a clip with several, "sampled" gives another one in every epoch, determined by
            the seed, "first" always the first; so does `shuffle=False`.

    Returns:
        an iterator of {"video": uint8 [f h w 3], "caption": str, or None for unconditional}.

    Raises:
        UserError: at once, for a missing data set or split, or for clips that are too small, too
            short or of another rate.
    """
    from phenaki.data import seqio_source  # imports seqio

    stream = stream_of(start, rows, shuffle, state)
    name = f"phenaki_{kind}_{split}"
    mixture = register(name, sources, kind, split, spec, seed, stream, captions)
    data = seqio_source.dataset(mixture, split, seed, stream)
    return map(_example, seqio_source.NumpyExamples(data))


def _example(fields: Mapping[str, Any]) -> dict[str, Any]:
    caption = fields["text"].decode(errors="replace") if fields["captioned"] else None
    return {"video": fields["video"], "caption": caption}


def register(
    name: str,
    sources: mixing.SourceRates,
    kind: str,
    split: str,
    spec: Spec,
    seed: int,
    stream: Stream = WHOLE,
    captions: str = SAMPLED,
):
    """Registers the seqio mixture `name` and its tasks `name:0`, `name:1`, ...

    An older mixture of that name is replaced. Features: video uint8 [f h w 3], text (a string) and
    captioned (False for unconditional).
    """
    from phenaki.data import seqio_source  # imports seqio

    rates = mixing.rates(sources)
    sampled = stream.shuffle and check_captions(captions) == SAMPLED
    parts = [
        _ClipSource(
            directory, kind, split, spec, (seed, stream.index_of(place)), stream.shuffle, sampled
        )
        for place, directory in enumerate(rates)
    ]
    return seqio_source.mix(name, parts, list(rates.values()), _features(), split, seed, stream)


def check_captions(captions: str) -> str:
    """`captions`, if it is one of `CAPTIONS`; UserError otherwise."""
    one_of("config.data.captions", captions, dict.fromkeys(CAPTIONS))
    return captions


def _features():
    seqio, tf = tensorflow.seqio(), tensorflow.tensorflow()
    return {
        "video": seqio.ContinuousFeature(dtype=tf.uint8, rank=4),
        "text": seqio.ContinuousFeature(dtype=tf.string, rank=0),
        "captioned": seqio.ContinuousFeature(dtype=tf.bool, rank=0),
    }


class _ClipSource:
    """An `ExampleSource`: maps an example number to a record, a crop and a caption of it."""

    def __init__(
        self, directory, kind: str, split: str, spec: Spec, seed, shuffle: bool, sampled: bool
    ):
        data, self.form = format.open_set(directory)
        name = stored_split(kind, split, spec.frames, data.info.splits)
        if name not in data.info.splits:
            raise format.no_split(directory, name, data.info.splits)
        kind = name.partition("_")[0]
        self.frames = spec.frames if kind == "video" else 1
        stored = self.form.frames if kind == "video" else 1
        check(directory, kind, self.form, spec)
        self.shape = (self.frames, spec.height, spec.width, 3)
        self.slack = (
            stored - self.frames,
            self.form.height - spec.height,
            self.form.width - spec.width,
        )
        info = data.info.splits[name]
        self.records = Records(info.filepaths, info.shard_lengths)
        self.paths = self.records.paths
        self.order = mixing.Order(len(self.records), seed, shuffle)
        self.seed, self.shuffle, self.sampled = seed, shuffle, sampled

    def take(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (records, corners, captions).

        The crop of each record begins at its corner (f, y, x); its caption has that number, modulo
        how many it has.
        """
        records = self.records.take([self.order(int(number)) for number in numbers])
        slack = np.array(self.slack)
        corners = np.tile((slack * (0, 1, 1) // 2).astype(np.int32), (len(records), 1))
        if self.shuffle:
            for corner, number in zip(corners, numbers, strict=True):
                random = mixing.random(*self.seed, "part", int(number))
                corner[:] = random.integers(0, slack + 1)
        captions = [self.order.caption(int(number)) if self.sampled else 0 for number in numbers]
        return np.array(records, object), corners, np.array(captions, np.int64)

    def decode(self, numbers):
        """Maps example numbers to the decoded crops of their records."""
        tf = tensorflow.tensorflow()

        def read(numbers):
            types = [tf.string, tf.int32, tf.int64]
            records, corners, captions = tf.numpy_function(self.take, [numbers], types)
            corners = tf.ensure_shape(corners, (None, 3))
            return tf.ensure_shape(records, (None,)), corners, tf.ensure_shape(captions, (None,))

        def decode(record, corner, caption):
            fields = parse(record, corner, self.form, self.shape, caption)
            return {name: fields[name] for name in ("video", "text", "captioned")}

        # AutoGraph would search for Python control flow for seconds; there is none.
        read, decode = map(tf.autograph.experimental.do_not_convert, (read, decode))
        groups = numbers.batch(THREADS).map(read, num_parallel_calls=2)  # reads one batch ahead
        return groups.unbatch().map(decode, num_parallel_calls=tf.data.AUTOTUNE)
