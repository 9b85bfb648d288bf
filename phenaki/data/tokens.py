"""Stored tokens of clips and ids of captions as endless streams of batches."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from phenaki.data import clip_records, clips, format, mixture, tensorflow, token_files
from phenaki.data.host_rows import HostRows
from phenaki.data.mixture_state import MixtureState, stream_of
from phenaki.data.records import Records
from phenaki.data.token_files import EMBEDDING, MORE, Origin, Sizes
from phenaki.io.paths import PathLike

MANY = ("caption", "ids", "embeddings")  # of which a record may have several


class _TokenSource:
    """The records of one directory of stored tokens, in the order of the mixture."""

    def __init__(
        self, directory: PathLike, kind: str, split: str, origin: Origin, index: int, seed: int
    ):
        manifest = token_files.read_manifest(directory)
        token_files.check_origin(directory, manifest, origin)
        name = _stored_split(manifest, kind, split)
        if name not in manifest["files"]:
            raise format.no_split(directory, name, manifest["files"])
        self.sizes = Sizes(**manifest["sizes"])
        files = manifest["files"][name]
        self.records = Records(
            [os.path.join(directory, file["name"]) for file in files],
            [file["records"] for file in files],
        )
        self.order = mixture.Order(len(self.records), (seed, index))

    def take(self, numbers: np.ndarray) -> list[bytes]:
        """The records of these example numbers of the source."""
        return self.records.take([self.order(int(number)) for number in numbers])


def batches(
    sources: mixture.SourceRates,
    *,
    split: str,
    kind: str,
    rows: HostRows,
    origin: Origin,
    seed: int,
    start: int = 0,
    state: MixtureState | None = None,
    captions: str = clips.SAMPLED,
) -> Iterator[tuple[dict[str, np.ndarray], list[str | None]]]:
    """The endless stream of one host's `rows` of every batch: (arrays, captions).

    Arguments and order are those of `clips.examples`. Arrays are tokens int32 [b n] and, for
    captions, text_ids int32 [b l], and text float32 [b l d] if `origin` has an encoder.

    Raises:
        UserError: at once, for missing or stale tokens.
    """
    rates = mixture.rates(sources)
    stream = stream_of(start, rows, state=state)
    opened = [
        _TokenSource(directory, kind, split, origin, stream.index_of(place), seed)
        for place, directory in enumerate(rates)
    ]
    pattern = mixture.pattern(list(rates.values()), seed)
    sampled = clips.check_captions(captions) == clips.SAMPLED
    return _batches(opened, pattern, kind, stream, origin, sampled)


def size(directory: PathLike, split: str, kind: str) -> int:
    """Number of stored examples, as `clip_records.size`."""
    manifest = token_files.read_manifest(directory)
    return manifest["records"].get(_stored_split(manifest, kind, split), 0)


def _stored_split(manifest, kind: str, split: str) -> str:
    # With clips of one frame both kinds have as many tokens.
    frames = 1 if manifest["sizes"]["video"] == manifest["sizes"]["image"] else None
    return clip_records.stored_split(kind, split, frames, manifest["files"])


def _batches(sources, pattern, kind, stream, origin, sampled):
    tf, host_rows, start = tensorflow.tensorflow(), stream.rows, stream.start - stream.since
    taken = np.array([stream.taken_of(place) for place in range(len(sources))])
    while True:
        source, own = mixture.draws(pattern, host_rows.numbers(start))
        own = own + taken[source]
        records = np.empty(len(host_rows), object)
        for part in np.unique(source):
            records[source == part] = sources[part].take(own[source == part])
        rows = tf.io.parse_example(tf.constant(records, tf.string), _features(tf))
        more = {name: rows.pop(MORE + name) for name in MANY}
        rows = {name: values.numpy() for name, values in rows.items()}
        if sampled and len(more["caption"].values):
            _draw_captions(rows, more, [sources[one].order for one in source], own)
        yield _arrays(rows, kind, sources[0].sizes, origin)
        start += host_rows.total


def _draw_captions(rows: dict[str, np.ndarray], more, orders: Sequence[mixture.Order], own) -> None:
    """Replaces captions of `rows` by others of the same record, which `more` has."""
    tf = tensorflow.tensorflow()
    texts = {name: tf.RaggedTensor.from_sparse(values).numpy() for name, values in more.items()}
    for row in map(int, np.flatnonzero([len(captions) for captions in texts["caption"]])):
        count = 1 + len(texts["caption"][row])
        if chosen := orders[row].caption(int(own[row])) % count:
            for name in [name for name in MANY if len(texts[name][row])]:
                rows[name][row] = texts[name][row][chosen - 1]


def _features(tf):
    required = tf.io.FixedLenFeature([], tf.string)
    optional = tf.io.FixedLenFeature([], tf.string, default_value="")
    names = ("codes", "ids", "caption", "captioned")
    # Sparse: ragged values become an array per row, also where there are none.
    several = {MORE + name: tf.io.VarLenFeature(tf.string) for name in MANY}
    return dict.fromkeys(names, required) | {"embeddings": optional} | several


def _arrays(rows, kind: str, sizes: Sizes, origin: Origin):
    joined, count = b"".join(rows["codes"]), getattr(sizes, kind)
    width = len(joined) // (len(rows["codes"]) * count)
    tokens = np.frombuffer(joined, f"<u{width}").reshape(-1, count).astype(np.int32)
    arrays: dict[str, np.ndarray] = {"tokens": tokens}
    if origin.text:
        flat = np.frombuffer(b"".join(rows["ids"]), "<u4")
        used = np.array([len(row) // 4 for row in rows["ids"]])
        mask = np.arange(sizes.text) < used[:, None]
        arrays["text_ids"] = np.zeros(mask.shape, np.int32)
        arrays["text_ids"][mask] = flat
        if origin.encoder:
            flat = np.frombuffer(b"".join(rows["embeddings"]), EMBEDDING)
            arrays["text"] = np.zeros((*mask.shape, sizes.width), np.float32)
            arrays["text"][mask] = flat.reshape(-1, sizes.width)
    captions = [
        caption.decode(errors="replace") if captioned == b"\1" else None
        for caption, captioned in zip(rows["caption"], rows["captioned"], strict=True)
    ]
    return arrays, captions
