"""seqio tasks and mixtures over data sets on disk, as a stream that can start anywhere.

Example number g of the whole job is a function of the seed and g alone: not of the number of hosts,
and not of what was read before. A mixture draws its sources in a fixed pattern of 1000, in exact
proportion; each source goes through its records in a new order every epoch. Only record numbers are
shuffled, never bytes or pixels, and skipping costs nothing.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from phenaki.data import builder, lazy, mixing
from phenaki.data.records import Records
from phenaki.errors import UserError

ENDLESS = 2**62
RAM_BUDGET = 2**29  # bytes of decoded clips that TensorFlow may hold ready


@runtime_checkable
class Spec(Protocol):
    """The fields of `types.VideoSpec` that matter here."""

    @property
    def frames(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def fps(self) -> float | int: ...


def examples(
    sources: mixing.Sources,
    *,
    split: str,
    kind: str,
    spec: Spec,
    seed: int,
    shard_index: int = 0,
    shard_count: int = 1,
    start: int = 0,
    shuffle: bool = True,
) -> Iterator[dict[str, Any]]:
    """The endless stream of one host's examples.

    Args:
        sources: directories of data sets and their rates, such as {"/data/a": 0.8, "/data/b": 0.2};
            or such pairs, or a lone path. Their order matters, the paths themselves do not.
        split: "train" or "validation".
        kind: "video" for clips of `spec.frames` frames, "image" for stills (one frame).
        spec: frames, height, width, fps. Stored clips may be longer or larger: a random part is
            taken, the same for the same seed and example; with `shuffle=False` the first frames and
            the centre.
        seed: of the order, of the mixture and of the random parts.
        shard_index, shard_count: of this host. Its example j is number
            j * shard_count + shard_index of the whole job.
        start: examples of this host to leave out, as after `start` calls of next(); takes no time.
        shuffle: False reads in the stored order, for evaluation; `size` says how many there are.

    Returns:
        an iterator of {"video": uint8 [f h w 3], "caption": str, or None for unconditional}.

    Raises:
        UserError: at once, for a missing data set or split, clips too small, too short or of
            another rate.
    """
    seqio = lazy.seqio()
    stream = Stream(start, shard_index, shard_count, shuffle)
    mixture = register(f"phenaki_{kind}_{split}", sources, kind, split, spec, seed, stream)
    dataset = mixture.get_dataset(
        sequence_length=None,
        split=split,
        shuffle=shuffle,
        seed=seed,
        shard_info=seqio.ShardInfo(shard_index, shard_count),
        num_epochs=1,  # the sources themselves are endless
        trim_output_features=False,
        try_in_mem_cache=False,
    )
    options = lazy.tensorflow().data.Options()
    options.deterministic = True
    options.autotune.ram_budget = RAM_BUDGET
    return map(_example, dataset.with_options(options).as_numpy_iterator())


def _example(fields: Mapping[str, Any]) -> dict[str, Any]:
    caption = fields["text"].decode(errors="replace") if fields["captioned"] else None
    return {"video": fields["video"], "caption": caption}


def size(directory: Path | str, split: str, kind: str) -> int:
    """Number of stored examples; 0 where the data set has none of that kind in that split."""
    data, _ = builder.open_set(directory)
    found = data.info.splits.get(f"{kind}_{split}")
    return found.num_examples if found else 0


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
        return lazy.tensorflow().data.Dataset.range(first, ENDLESS, self.shard_count)


def register(
    name: str,
    sources: mixing.Sources,
    kind: str,
    split: str,
    spec: Spec,
    seed: int,
    stream: Stream = Stream(),
):
    """Adds a seqio mixture `name` and its tasks `name:0`, `name:1` ... to the registries.

    Call it once the config is known; what carries the name already is replaced. Features: video
    uint8 [f h w 3], text (a string) and captioned (False: there is no caption).
    """
    seqio = lazy.seqio()
    rates = mixing.rates(sources)
    pattern = mixing.pattern(list(rates.values()), seed)
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        for old in [n for n in registry.names() if n == name or n.startswith(f"{name}:")]:
            registry.remove(old)
    features = _features()
    for index, directory in enumerate(rates):
        clips = _Clips(directory, kind, split, spec, (seed, index), stream.shuffle)
        seqio.TaskRegistry.add(
            f"{name}:{index}",
            source=_source(split, stream, pattern, index, clips),
            preprocessors=[functools.partial(_decode, clips=clips)],
            output_features=features,
            shuffle_buffer_size=None,  # the source is in random order already
        )
    return seqio.MixtureRegistry.add(
        name,
        [(f"{name}:{index}", rate) for index, rate in enumerate(rates.values())],
        sample_fn=functools.partial(_mix, stream=stream, pattern=pattern),
    )


def _features():
    seqio, tf = lazy.seqio(), lazy.tensorflow()
    return {
        "video": seqio.ContinuousFeature(dtype=tf.uint8, rank=4),
        "text": seqio.ContinuousFeature(dtype=tf.string, rank=0),
        "captioned": seqio.ContinuousFeature(dtype=tf.bool, rank=0),
    }


class _Clips:
    """The records of one source: which one an example shows, and which part of it."""

    def __init__(self, directory, kind: str, split: str, spec: Spec, seed, shuffle: bool):
        data, self.form = builder.open_set(directory)
        name = f"{kind}_{split}"
        if name not in data.info.splits:
            known = ", ".join(sorted(data.info.splits))
            raise UserError(f"{directory}: has no split {name}; it has {known}.")
        self.frames = spec.frames if kind == "video" else 1
        stored = self.form.frames if kind == "video" else 1
        _check(directory, kind, self.form, spec)
        self.shape = (self.frames, spec.height, spec.width, 3)
        self.slack = (
            stored - self.frames,
            self.form.height - spec.height,
            self.form.width - spec.width,
        )
        self.records = Records(data.info.splits[name].filepaths)
        self.seed, self.shuffle = seed, shuffle

    @functools.lru_cache(maxsize=2)  # noqa: B019  lives as long as the stream
    def order(self, epoch: int) -> np.ndarray:
        """The records in the order of that epoch."""
        count = len(self.records)
        return mixing.random(*self.seed, "order", epoch).permutation(count).astype(np.uint32)

    def read(self, number: np.integer) -> tuple[bytes, np.ndarray]:
        """The record of this source's example `number`, and where its part begins (f, y, x)."""
        epoch, index = divmod(int(number), len(self.records))
        slack = np.array(self.slack)
        if not self.shuffle:
            return self.records[index], (slack * (0, 1, 1) // 2).astype(np.int32)
        corner = mixing.random(*self.seed, "part", int(number)).integers(0, slack + 1)
        return self.records[int(self.order(epoch)[index])], corner.astype(np.int32)


def _check(directory, kind: str, form: builder.Format, spec: Spec) -> None:
    if form.height < spec.height or form.width < spec.width:
        raise UserError(
            f"{directory}: clips of {form.height}x{form.width} pixels; config.video wants "
            f"{spec.height}x{spec.width}. Prepare the data with a larger --size."
        )
    if kind == "video" and form.frames < spec.frames:
        raise UserError(
            f"{directory}: clips of {form.frames} frames; config.video.frames={spec.frames}. "
            f"Prepare the data with --frames={spec.frames}."
        )
    if kind == "video" and abs(form.fps - spec.fps) > 0.01:
        raise UserError(
            f"{directory}: clips of {form.fps:g} frames a second; config.video.fps={spec.fps:g}. "
            f"Prepare the data with --fps={spec.fps:g}."
        )


def _source(split: str, stream: Stream, pattern: np.ndarray, index: int, clips: _Clips):
    """A seqio source of this source's example numbers, as drawn by the mixture."""
    tf = lazy.tensorflow()
    if TYPE_CHECKING:
        import seqio
    else:
        seqio = lazy.seqio()
    mine = pattern == index
    before = np.cumsum(mine) - mine  # draws of this source earlier in the period

    class Numbers(seqio.DataSource):
        supports_arbitrary_sharding = True

        def list_shards(self, split):
            return clips.records.paths

        def get_dataset(self, split="train", shuffle=True, seed=None, shard_info=None, **unused):
            numbers = stream.numbers().filter(lambda n: tf.constant(mine)[n % len(pattern)])
            return numbers.map(
                lambda n: n // len(pattern) * mine.sum() + tf.constant(before)[n % len(pattern)]
            )

    return Numbers([split], caching_permitted=False, performs_internal_shuffling=True)


def _mix(datasets, rates, seed, *, stream: Stream, pattern: np.ndarray):
    tf = lazy.tensorflow()
    choices = stream.numbers().map(lambda n: tf.constant(pattern)[n % len(pattern)])
    return tf.data.Dataset.choose_from_datasets(datasets, choices)


def _decode(numbers, *, clips: _Clips):
    """Reads and decodes the part of each record that is asked for."""
    tf = lazy.tensorflow()

    def read(number):
        record, corner = tf.numpy_function(clips.read, [number], [tf.string, tf.int32])
        return tf.ensure_shape(record, ()), tf.ensure_shape(corner, (3,))

    def decode(record, corner):
        fields = tf.io.parse_single_example(
            record,
            {
                "video": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
                "caption": tf.io.FixedLenFeature([], tf.string),
                "captioned": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        encoded = fields["video"][corner[0] : corner[0] + clips.frames]
        video = tf.map_fn(
            functools.partial(_image, form=clips.form), encoded, fn_output_signature=tf.uint8
        )
        _, height, width, _ = clips.shape
        video = video[:, corner[1] : corner[1] + height, corner[2] : corner[2] + width]
        return {
            "video": tf.ensure_shape(video, clips.shape),
            "text": fields["caption"],
            "captioned": tf.cast(fields["captioned"], tf.bool),
        }

    for step in (read, decode):
        # There is no Python control flow to convert, and finding that out takes seconds.
        step = tf.autograph.experimental.do_not_convert(step)
        numbers = numbers.map(step, num_parallel_calls=tf.data.AUTOTUNE)
    return numbers


def _image(encoded, form: builder.Format):
    tf = lazy.tensorflow()
    if form.encoding == "png":
        image = tf.io.decode_png(encoded, channels=3)
    else:
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, (form.height, form.width, 3))
