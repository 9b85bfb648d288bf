"""Encodes a data set once: tokens and caption ids of every clip, on any number of hosts (§2.2).

Each file of the data set becomes a file of tokens of the same name (`data.token_files`). A stopped
run resumes; after a change of tokenizer or data only what changed is encoded again.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phenaki.data import clip_records, format, records, tensorflow, token_files
from phenaki.data.format import SetFile
from phenaki.data.prepare import manifest
from phenaki.errors import UserError
from phenaki.io import artifacts, checkpoint, outputs, paths, shared_folder
from phenaki.io.paths import PathLike
from phenaki.types import VideoSpec


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes the files of the data set `source` into the directory `output`.

    Attributes:
        tokenizer: the run or bundle of stage 1, whose `fingerprint` the parameters have.
        encode: (parameters, uint8 video [b f h w 3]) -> tokens [b t m n]; compiled.
        text: captions -> {"text_ids": [b l], "text": [b l d] if stored}; None without captions.
        codebook: number of codes.
        batch: clips per call, split over this host's devices; images fill as many frames.
    """

    tokenizer: PathLike
    source: str
    output: str
    params: Any
    encode: Callable[[Any, jax.Array], jax.Array]
    text: Callable[[list], dict[str, np.ndarray]] | None
    origin: token_files.Origin
    sizes: token_files.Sizes
    spec: VideoSpec
    codebook: int
    batch: int

    def batch_of(self, kind: str) -> int:
        """Clips or images per call."""
        return self.batch if kind == "video" else self.batch * self.spec.frames

    def tokens(self, kind: str, video: np.ndarray) -> np.ndarray:
        """uint8 [b f h w 3], b at most `batch_of(kind)` -> tokens [b n]."""
        padded = np.zeros((self.batch_of(kind), *video.shape[1:]), np.uint8)
        padded[: len(video)] = video
        encoded = self.encode(self.params, jax.device_put(padded, split(jax.local_devices())))
        tokens = np.asarray(encoded).reshape(len(padded), -1)[: len(video)]
        return tokens.astype(np.uint16 if self.codebook <= 2**16 else np.uint32)

    def seconds(self, kind: str) -> float:
        """Seconds per clip of `kind`, without compilation."""
        frames = self.spec.frames if kind == "video" else 1
        shape = (self.batch_of(kind), frames, self.spec.height, self.spec.width, 3)
        video = np.zeros(shape, np.uint8)
        self.tokens(kind, video)
        start = time.perf_counter()
        self.tokens(kind, video)
        return (time.perf_counter() - start) / len(video)

    def output_of(self, file: SetFile) -> str:
        """Path of the tokens of a file of the data set."""
        return os.path.join(self.output, os.path.basename(file.path))


def split(devices: list) -> NamedSharding:
    """Sharding of a batch over its rows."""
    return NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))


def encode_file(encoder: Encoder, file: SetFile, sha256: str) -> None:
    """Writes the tokens of one file, whose content has that SHA-256.

    Raises:
        UserError: the file is corrupt.
    """
    token_files.write_file(
        encoder.output_of(file), _examples(encoder, file), encoder.origin, sha256
    )


def _examples(encoder: Encoder, file: SetFile) -> Iterator[bytes]:
    origin = encoder.origin.digest()
    for rows in _batches(encoder, file):
        firsts = [
            text.decode(errors="replace") if known else None
            for text, known in zip(rows["text"], rows["captioned"], strict=True)
        ]
        ids, text = np.zeros((len(firsts), 0), np.int32), None
        if encoder.text is not None:
            encoded = encoder.text(firsts)
            ids, text = encoded["text_ids"], encoded.get("text")
        tokens = encoder.tokens(file.kind, rows["video"])
        more = [[one for one in of_row if one] for of_row in rows["more_captions"]]  # padded
        others = _captions(encoder, [one for of_row in more for one in of_row], file.kind)
        for row in range(len(tokens)):
            embedded = None if text is None else text[row]
            first = token_files.Caption(rows["text"][row], ids[row], embedded)
            captions = [first, *(next(others) for _ in more[row])]
            captioned, key = bool(rows["captioned"][row]), rows["key"][row]
            yield token_files.example(tokens[row], captions, captioned, key, origin)


def _captions(encoder: Encoder, texts: list[bytes], kind: str) -> Iterator[token_files.Caption]:
    """Encodes any number of captions, in batches of one size, so that nothing compiles again."""
    count = encoder.batch_of(kind)
    for start in range(0, len(texts), count):
        part = texts[start : start + count]
        if encoder.text is None:
            yield from (token_files.Caption(text, np.zeros(0, np.int32), None) for text in part)
            continue
        padding = [None] * (count - len(part))
        encoded = encoder.text([text.decode(errors="replace") for text in part] + padding)
        embedded = encoded.get("text")
        for row, text in enumerate(part):
            of_row = None if embedded is None else embedded[row]
            yield token_files.Caption(text, encoded["text_ids"][row], of_row)


def _batches(encoder: Encoder, file: SetFile) -> Iterator[dict[str, Any]]:
    data = clip_records.shard(file.path, encoder.source, file.kind, encoder.spec)
    found = 0
    try:
        # Only the lists of captions differ in length.
        batches = data.padded_batch(encoder.batch_of(file.kind))
        for rows in batches.prefetch(2).as_numpy_iterator():
            found += len(rows["key"])
            yield rows
    except tensorflow.tensorflow().errors.OpError as error:
        raise UserError(
            f"{file.path}: corrupt; write the data set again, then the same command encodes what "
            "changed."
        ) from error
    records.check_counts([file.path], [found], [file.count])


def run(encoder: Encoder, log: Callable[[str], Any], progress, estimate: bool = False) -> None:
    """Encodes this host's part of the files; the manifest is written last.

    Args:
        log: called with a line at a time.
        progress: called with a total; returns a context manager with `update(count)`.
        estimate: only log sizes and times.

    Raises:
        UserError: the data set is missing, or its clips are smaller or shorter than those of the
            tokenizer; or see `outputs.claimed`.
    """
    inputs = [("input", encoder.source), ("tokenizer", encoder.tokenizer)]
    if estimate:
        outputs.admit("output", encoder.output, "tokens", inputs)
        _run(encoder, log, progress, estimate)
        return
    with outputs.claimed("output", encoder.output, "tokens", inputs):
        shared_folder.check_seen("output", encoder.output)
        _run(encoder, log, progress, estimate)


def _run(encoder: Encoder, log: Callable[[str], Any], progress, estimate: bool) -> None:
    host, hosts = jax.process_index(), jax.process_count()
    files = format.files(encoder.source)
    known = manifest.checksums(encoder.source)
    missing = _missing(encoder, files, known, remove_manifest=not estimate)
    # All hosts have the same list: every file has one host, and their numbers of files are equal.
    mine = [file for file, absent in zip(files, missing, strict=True) if absent][host::hosts]
    for line in _estimate(encoder, files, mine, len(files) - int(missing.sum())):
        log(line)
    if estimate:
        return
    with progress(sum(file.count for file in mine)) as shown:
        for file in mine:
            encode_file(encoder, file, _sha256(file, known))
            shown.update(file.count)
    if hosts > 1:
        multihost_utils.sync_global_devices("encoded")
    if host == 0:
        written: dict[str, list[str]] = {}
        for file in files:
            written.setdefault(file.split, []).append(encoder.output_of(file))
        token_files.finish(encoder.output, written, encoder.origin, encoder.sizes)
        log(f"{encoder.output}/{token_files.MANIFEST}: all {len(files)} files are encoded")
    _warn_if_replaced(encoder)


def _warn_if_replaced(encoder: Encoder) -> None:
    """A line if the tokenizer was trained further or replaced since its parameters were read.

    All hosts call it: they load together.
    """
    try:
        _, _, now = checkpoint.load_tokenizer(encoder.tokenizer)
    except Exception as error:  # whatever a folder without a tokenizer raises: it is not needed
        now = " ".join(str(error).split())[:200]
    if now != encoder.origin.tokenizer and jax.process_index() == 0:
        logging.warning(
            "--tokenizer=%s: changed while this ran (%s, was %s); the tokens are those of the "
            "tokenizer as it was at the start.", encoder.tokenizer, now, encoder.origin.tokenizer,
        )  # fmt: skip


def _missing(
    encoder: Encoder, files: list[SetFile], known: dict[str, str], remove_manifest: bool
) -> np.ndarray:
    """Which files have no complete tokens, found by host 0."""
    missing = np.zeros(len(files), bool)

    def absent(file: SetFile) -> bool:
        return not token_files.is_complete(
            encoder.output_of(file), encoder.origin, _sha256(file, known)
        )

    if jax.process_index() == 0:
        missing[:] = records.parallel_map(absent, files)
        if missing.any() and remove_manifest:  # the directory is not complete any more
            manifest_path = os.path.join(encoder.output, token_files.MANIFEST)
            paths.path(manifest_path).unlink(missing_ok=True)
    if jax.process_count() > 1:
        missing = multihost_utils.broadcast_one_to_all(missing)
    return missing


def _sha256(file: SetFile, known: dict[str, str]) -> str:
    return known.get(os.path.basename(file.path)) or artifacts.checksum(file.path)["sha256"]


def _estimate(encoder: Encoder, files, mine, complete: int) -> Iterator[str]:
    """Lines: the data set, what is encoded already, what is to be encoded and how long it takes."""
    sizes = encoder.sizes
    width = 2 if encoder.codebook <= 2**16 else 4
    per_id = 4 + (2 * sizes.width)
    for split in sorted({file.split for file in files}):
        count = sum(file.count for file in files if file.split == split)
        tokens = getattr(sizes, split.partition("_")[0])
        size = f"{_si(count * tokens * width)}B"
        text = f", captions at most {_si(count * sizes.text * per_id)}B" if sizes.text else ""
        yield f"{split}: {count:,} of {tokens} tokens: {size} of tokens{text}"
    if complete:
        yield f"{complete} files are encoded already"
    total = 0.0
    for kind in sorted({file.kind for file in mine}):
        count = sum(file.count for file in mine if file.kind == kind)
        seconds = encoder.seconds(kind)
        total += seconds * count
        yield f"{kind}: {1 / seconds:.4g} per second on this host's devices"
    hosts = jax.process_count()
    part = f" of {hosts}" if hosts > 1 else ""
    yield f"{len(mine)} files to encode on this host{part}: about {total:.0f} s of encoding"


def _si(count: float | int) -> str:
    """A number with three digits and an SI prefix."""
    step = min(int(math.log10(max(count, 1)) / 3), 4)
    return f"{count / 1000**step:.3g} {('', 'k', 'M', 'G', 'T')[step]}"
