"""The data set on disk: TFDS, sharded TFRecord, frames as encoded images, captions, provenance.

One directory is one data set that `tfds.builder_from_directory` opens. Its splits are video_train,
video_validation, image_train and image_validation; those without examples are absent. A source file
goes to validation by the hash of its key, so all of its clips land on one side, and adding files
moves none.
"""

import dataclasses
import hashlib
import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki.data import tensorflow
from phenaki.errors import UserError

NAME = "clips"
VERSION = "1.0.0"
KINDS = ("video", "image")
SPLITS = ("train", "validation")
Encoding = Literal["jpeg", "png"]
PENDING = 64  # records kept before the writer's metadata is written again


@dataclasses.dataclass(frozen=True)
class Format:
    """What all clips of a data set share. `frames` is that of videos; images have one."""

    frames: int
    fps: float
    height: int
    width: int
    encoding: Encoding = "jpeg"


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One clip, its frames encoded. `start` in seconds; `source_size` (height, width) in pixels.

    `fps` is the clip's rate, `source_fps` the mean one of what it was cut from; 0 of stills.
    """

    key: str
    frames: list[bytes]
    caption: str | None
    source: str
    source_sha256: str
    source_size: tuple[int, int]
    start: float
    fps: float
    source_fps: float = 0.0

    def example(self) -> dict[str, Any]:
        """The record as `features` wants it; `captioned` tells None from blank."""
        return {
            "key": self.key,
            "video": self.frames,
            "caption": self.caption or "",
            "captioned": self.caption is not None,
            "source": self.source,
            "source_sha256": self.source_sha256,
            "source_size": np.array(self.source_size, np.int32),
            "start": np.float32(self.start),
            "fps": np.float32(self.fps),
            "source_fps": np.float32(self.source_fps),
        }


def features(form: Format):
    """The TFDS feature dictionary of every data set of this project."""
    tfds = tensorflow.datasets()
    return tfds.features.FeaturesDict(
        {
            "key": tfds.features.Text(),
            "video": tfds.features.Video(
                shape=(None, form.height, form.width, 3), encoding_format=form.encoding
            ),
            "caption": tfds.features.Text(),
            "captioned": np.bool_,
            "source": tfds.features.Text(),
            "source_sha256": tfds.features.Text(),
            "source_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "start": np.float32,
            "fps": np.float32,
            "source_fps": np.float32,
        }
    )


def encode(
    video: UInt8[np.ndarray, "f h w 3"], encoding: str = "jpeg", quality: int = 95
) -> list[bytes]:
    """Encodes the frames; JPEG without chroma subsampling, which would blur clips this small."""
    options = dict(quality=quality, subsampling=0) if encoding == "jpeg" else {}
    encoded = []
    for frame in video:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, encoding, **options)
        encoded.append(buffer.getvalue())
    return encoded


def split_of(key: str, validation: float) -> str:
    """ "train" or "validation", the latter for the share `validation` of all keys."""
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    return SPLITS[int.from_bytes(digest[:8], "big") < validation * 2**64]


def describe(directory: Path, form: Format):
    """The TFDS DatasetInfo of a data set that is to lie in `directory`."""
    tfds = tensorflow.datasets()
    identity = tfds.core.DatasetIdentity(
        name=NAME,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(directory),
        module_name="phenaki",
    )
    return tfds.core.DatasetInfo(
        builder=identity,
        description="Captioned clips and stills; splits are kind_split.",
        features=features(form),
        metadata=tfds.core.MetadataDict(dataclasses.asdict(form)),
    )


class Writer:
    """Writes records as they come; the directory is a data set once the context has been left."""

    def __init__(self, directory: Path, form: Format, per_shard: int = 512):
        tfds = tensorflow.datasets()
        info = describe(directory, form)
        self._writer = tfds.core.SequentialWriter(info, max_examples_per_shard=per_shard)
        self._pending: dict[str, list[dict]] = {}
        self.counts: dict[str, int] = {}

    def add(self, split: str, record: ClipRecord) -> None:
        """Appends to `split`, such as "video_train"."""
        if split not in self.counts:
            with tensorflow.quiet_logs():
                self._writer.initialize_splits([split])
        self.counts[split] = self.counts.get(split, 0) + 1
        self._pending.setdefault(split, []).append(record.example())
        if sum(map(len, self._pending.values())) >= PENDING:
            self._flush()

    def _flush(self) -> None:
        self._writer.add_examples(self._pending)
        self._pending = {}

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self._flush()
        self._writer.close_all()


def open_set(directory: Path | str):
    """The TFDS builder and the `Format` of a data set.

    Raises:
        UserError: not a directory that `Writer` or our TFDS builders wrote.
    """
    tfds = tensorflow.datasets()
    if not tensorflow.tensorflow().io.gfile.exists(os.path.join(directory, "features.json")):
        raise UserError(f"{directory}: not a data set; scripts/prepare_data.py writes one.")
    with tensorflow.quiet_logs():
        builder = tfds.builder_from_directory(os.fspath(directory))
    fields = {field.name for field in dataclasses.fields(Format)}
    metadata = builder.info.metadata or {}
    if not fields <= set(metadata) or "video" not in builder.info.features:
        raise UserError(
            f"{directory}: a data set, but not of clips; scripts/prepare_data.py writes one."
        )
    return builder, Format(**{name: metadata[name] for name in fields})
