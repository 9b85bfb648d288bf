"""Random access to the clips of one split of a data set, and the checksum of their files."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from phenaki.data import clip_records, format, tensorflow
from phenaki.data.prepare import manifest
from phenaki.data.records import Records, parallel_map
from phenaki.errors import UserError
from phenaki.io import artifacts
from phenaki.io.paths import PathLike


class StoredClips:
    """Clips by their number in stored order, cropped as by `clip_records.shard`.

    A clip is read without those before it. A corrupt record is an error: another in its place, as
    in training, would be another set.

    Raises:
        UserError: there is no such split, or its clips are too small, too short or of another rate.
            In `take`: a record is corrupt.
    """

    def __init__(self, directory: PathLike, split: str, kind: str, spec: clip_records.Spec):
        _, form = format.open_set(directory)
        clip_records.check(directory, kind, form, spec)
        stored = {file.split for file in format.files(directory)}
        kind = clip_records.stored_split(kind, split, spec.frames, stored).partition("_")[0]
        files = [f for f in format.files(directory) if f.split == f"{kind}_{split}"]
        if not files:
            raise UserError(f"{directory}: has no {kind} in split {split}.")
        self._records = Records([f.path for f in files], [f.count for f in files])
        self._parse = _parser(
            form, (spec.frames if kind == "video" else 1, spec.height, spec.width)
        )

    def __len__(self) -> int:
        return len(self._records)

    def take(self, numbers: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """The clips `numbers`: {"video": uint8 [f h w 3], "caption": str, or None without one}."""
        return parallel_map(self._example, [int(number) for number in numbers])

    def _example(self, number: int) -> dict[str, Any]:
        fields = self._parse(tensorflow.tensorflow().constant(self._records[number]))
        captioned = bool(fields["captioned"].numpy())
        caption = fields["text"].numpy().decode(errors="replace") if captioned else None
        return {"video": fields["video"].numpy(), "caption": caption}


def _parser(form: format.ClipFormat, shape: tuple[int, int, int]):
    """A compiled function from a record to its features."""
    tf = tensorflow.tensorflow()
    frames, height, width = shape
    corner = (0, (form.height - height) // 2, (form.width - width) // 2)

    def parse(record):
        return clip_records.parse(record, corner, form, (frames, height, width, 3))

    # Traced here, not by the first threads that call it.
    function = tf.function(parse, autograph=False)
    return function.get_concrete_function(tf.TensorSpec((), tf.string))


def _paths(directory: PathLike, split: str, kind: str) -> list[str]:
    return [file.path for file in format.files(directory) if file.split == f"{kind}_{split}"]


def checksum(directory: PathLike, split: str, kind: str) -> str:
    """16 hex digits of the clips' bytes and form, wherever the directory lies.

    They come from the manifest; without one the files are read.
    """
    known = manifest.checksums(os.fspath(directory))
    paths = _paths(directory, split, kind)
    _, form = format.open_set(directory)

    def of(path: str) -> str:
        of_manifest = known.get(os.path.basename(path))
        return of_manifest or artifacts.checksum(path)["sha256"]

    facts = dataclasses.asdict(form)
    del facts["caption_template"]  # the captions are in the records
    content = [facts, *parallel_map(of, paths)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
