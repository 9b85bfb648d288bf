"""Tokens and caption ids of a whole data set, computed once, by any number of hosts (§2.2).

Each file of the data set becomes a file of codes of the same name: written under another name,
renamed when whole, and then marked by NAME.done. A run that was stopped goes on; one with another
tokenizer, or over changed data, does again what changed and nothing else.
"""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from phenaki.data import clips as stored_clips
from phenaki.data import format, records, tensorflow, tokens
from phenaki.data.prepare import marks
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.train import inputs
from phenaki.train.maskgit import with_tokenizer


@dataclasses.dataclass(frozen=True)
class File:
    """One file of the data set, and what becomes of it in `output`."""

    split: str
    source: str
    count: int
    output: str

    @property
    def kind(self) -> str:
        """ "video" or "image"."""
        return self.split.partition("_")[0]


class Encoder:
    """A tokenizer and a vocabulary over one data set; `encode` does one file of it.

    Batches of `batch` clips (`batch` frames' worth of stills) are split over this host's devices.
    """

    def __init__(
        self, config: ConfigDict, tokenizer: str | Path, source: str, output: str, batch: int
    ):
        params, stage1, digest = checkpoint.load_tokenizer(tokenizer)
        self.config = with_tokenizer(config, stage1, digest)
        self.spec = factory.video_spec(self.config)
        self.source, self.output = source, output
        devices = jax.local_devices()
        if batch % len(devices):
            nearest = max(round(batch / len(devices)), 1) * len(devices)
            raise UserError(
                f"--batch={batch} must be a multiple of the {len(devices)} devices; nearest is "
                f"{nearest}."
            )
        mesh = Mesh(np.array(devices), ("data",))
        self._rows = NamedSharding(mesh, PartitionSpec("data"))
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        network = factory.tokenizer(self.config)
        self._encode = jax.jit(
            lambda params, video: inputs.tokens(network, {"tokenizer": params}, {"video": video})
        )
        self._batch = {"video": batch, "image": batch * self.spec.frames}
        self.origin = tokens.Origin.of(self.config)
        self._text = None
        if text := self.config.text:
            vocabulary, encoder, weights = factory.vocabulary(self.config), None, None
            if text.cached:
                encoder = factory.text_encoder(self.config)
                weights = factory.text_params(self.config)
            self._text = inputs.caption_encoder(vocabulary, text.vocabulary, encoder, weights)

    def files(self) -> list[File]:
        """All files of the data set, in one order."""
        data, _ = format.open_set(self.source)
        found = []
        for split, info in sorted(data.info.splits.items()):
            for path, count in zip(info.filepaths, info.shard_lengths, strict=True):
                output = os.path.join(self.output, os.path.basename(path))
                found.append(File(split, os.fspath(path), count, output))
        return found

    def sizes(self) -> tokens.Sizes:
        """Of what a record holds."""
        text = self.config.text
        return tokens.Sizes(
            video=self.spec.tokens(),
            image=self.spec.tokens(1),
            text=text.length if text else 0,
            width=text.width if text and text.cached else 0,
        )

    def codes(self, kind: str, video: np.ndarray) -> np.ndarray:
        """uint8 [b f h w 3], b at most the batch of `kind` -> codes [b n]."""
        padded = np.zeros((self._batch[kind], *video.shape[1:]), np.uint8)
        padded[: len(video)] = video
        codes = self._encode(self._params, jax.device_put(padded, self._rows))
        codes = np.asarray(codes).reshape(len(padded), -1)[: len(video)]
        return codes.astype(np.uint16 if self.config.tokenizer.codebook <= 2**16 else np.uint32)

    def seconds(self, kind: str) -> float:
        """WindowMetrics time per clip of `kind`, compilation left out."""
        frames = self.spec.frames if kind == "video" else 1
        shape = (self._batch[kind], frames, self.spec.height, self.spec.width, 3)
        video = np.zeros(shape, np.uint8)
        self.codes(kind, video)
        start = time.perf_counter()
        self.codes(kind, video)
        return (time.perf_counter() - start) / len(video)

    def encode(self, file: File, digest: str) -> None:
        """Writes the codes of one file, whose content is `digest`, and its mark."""
        tf = tensorflow.tensorflow()
        part, lengths = f"{file.output}.part", []
        with tf.io.TFRecordWriter(part) as writer:
            for record in self._records(file):
                writer.write(record)
                lengths.append(len(record))
        mark = {
            "name": os.path.basename(file.output),
            "records": len(lengths),
            "origin": self.origin.digest(),
            "input": digest,
            **marks.checksum(part),
        }
        with tf.io.gfile.GFile(file.output + records.LENGTHS, "wb") as beside:
            np.save(beside, np.array(lengths, np.uint32))
        tf.io.gfile.rename(part, file.output, overwrite=True)
        marks.write_json(file.output + marks.DONE, mark)

    def _read(self, file: File) -> Iterator[dict[str, Any]]:
        """Batches of the clips of a file.

        Raises:
            UserError: it is damaged.
        """
        clips = stored_clips.shard(file.source, self.source, file.kind, self.config.video)
        try:
            yield from clips.batch(self._batch[file.kind]).prefetch(2).as_numpy_iterator()
        except tensorflow.tensorflow().errors.OpError as error:
            raise UserError(
                f"{file.source}: is damaged; write the data set again, then the same command "
                "encodes what changed."
            ) from error

    def _records(self, file: File) -> Iterator[bytes]:
        origin = self.origin.digest()
        for rows in self._read(file):
            captions = [
                text.decode(errors="replace") if known else None
                for text, known in zip(rows["text"], rows["captioned"], strict=True)
            ]
            ids, text = np.zeros((len(captions), 0), np.int32), None
            if self._text is not None:
                encoded = self._text(captions)
                ids, text = encoded["text_ids"], encoded.get("text")
            codes = self.codes(file.kind, rows["video"])
            for row in range(len(codes)):
                yield tokens.example(
                    codes[row],
                    ids[row],
                    None if text is None else text[row],
                    rows["text"][row],
                    bool(rows["captioned"][row]),
                    rows["key"][row],
                    origin,
                )


def run(encoder: Encoder, say: Callable[[str], Any], progress, estimate: bool = False) -> None:
    """Encodes this host's share of the files; the last thing written is the manifest.

    Args:
        say: gets a line at a time. progress: of a total, gives a context manager with `update`.
        estimate: stop after saying what it will take.

    Raises:
        UserError: the data set is missing, or its clips are smaller or shorter than those of the
            tokenizer.
    """
    gfile = tensorflow.tensorflow().io.gfile
    host, hosts = jax.process_index(), jax.process_count()
    files = encoder.files()
    digests = marks.noted_digests(encoder.source)
    missing = np.zeros(len(files), bool)
    if host == 0:
        missing[:] = records.side_by_side(lambda file: not _stands(encoder, file, digests), files)
        if missing.any() and not estimate:  # what stands is not whole any more
            with contextlib.suppress(tensorflow.tensorflow().errors.NotFoundError):
                gfile.remove(os.path.join(encoder.output, tokens.MANIFEST))
    if hosts > 1:  # one list for all, so that every file is one host's, and the shares are equal
        missing = multihost_utils.broadcast_one_to_all(missing)
    mine = [file for file, absent in zip(files, missing, strict=True) if absent][host::hosts]
    for line in _estimate(encoder, files, mine, len(files) - int(missing.sum())):
        say(line)
    if estimate:
        return
    gfile.makedirs(encoder.output)
    with progress(sum(file.count for file in mine)) as shown:
        for file in mine:
            encoder.encode(file, _digest(file, digests))
            shown.update(file.count)
    if hosts > 1:
        multihost_utils.sync_global_devices("encoded")
    if host == 0:
        _finish(encoder, files)
        say(f"{encoder.output}/{tokens.MANIFEST}: all {len(files)} files are encoded")


def _digest(file: File, noted: Mapping[str, str]) -> str:
    return noted.get(os.path.basename(file.source)) or marks.checksum(file.source)["sha256"]


def _stands(encoder: Encoder, file: File, noted: Mapping[str, str]) -> bool:
    return marks.done(file.output, encoder.origin.digest(), _digest(file, noted))


def _estimate(encoder: Encoder, files, missing, stood: int) -> Iterator[str]:
    """Lines: what there is, what stands, what is to be written and how long it takes."""
    sizes = encoder.sizes()
    width = 2 if encoder.config.tokenizer.codebook <= 2**16 else 4
    per_id = 4 + (2 * sizes.width)
    for split in sorted({file.split for file in files}):
        count = sum(file.count for file in files if file.split == split)
        codes = getattr(sizes, split.partition("_")[0])
        size = f"{_si(count * codes * width)}B"
        text = f", captions at most {_si(count * sizes.text * per_id)}B" if sizes.text else ""
        yield f"{split}: {count:,} of {codes} codes: {size} of codes{text}"
    if stood:
        yield f"{stood} files are encoded already"
    total = 0.0
    for kind in sorted({file.kind for file in missing}):
        count = sum(file.count for file in missing if file.kind == kind)
        seconds = encoder.seconds(kind)
        total += seconds * count
        yield f"{kind}: {1 / seconds:.4g} a second on this host's devices"
    hosts = jax.process_count()
    share = f" of {hosts}" if hosts > 1 else ""
    yield f"{len(missing)} files to encode on this host{share}: about {total:.0f} s of encoding"


def _si(count: float | int) -> str:
    """A number with three digits and a prefix."""
    step = min(int(math.log10(max(count, 1)) / 3), 4)
    return f"{count / 1000**step:.3g} {('', 'k', 'M', 'G', 'T')[step]}"


def _finish(encoder: Encoder, files: list[File]) -> None:
    """Removes what belongs to no file of the data set any more, then writes the manifest."""
    gfile = tensorflow.tensorflow().io.gfile
    ours = {os.path.basename(file.output) for file in files}
    for name in gfile.listdir(encoder.output):
        stem = name.removesuffix(marks.DONE).removesuffix(records.LENGTHS).removesuffix(".part")
        if ".tfrecord-" in name and (stem not in ours or name.endswith(".part")):
            gfile.remove(os.path.join(encoder.output, name))
    by_split: dict[str, list] = {}
    found = records.side_by_side(lambda file: marks.mark(file.output), files)
    for file, mark in zip(files, found, strict=True):
        if mark is None:
            raise UserError(f"{file.output}: is missing; run scripts/encode_dataset.py again.")
        by_split.setdefault(file.split, []).append(mark)
    manifest = {
        "schema": tokens.SCHEMA,
        "origin": dataclasses.asdict(encoder.origin),
        "sizes": dataclasses.asdict(encoder.sizes()),
        "records": {split: sum(m["records"] for m in made) for split, made in by_split.items()},
        "files": by_split,
    }
    marks.write_json(os.path.join(encoder.output, tokens.MANIFEST), manifest)
