"""The clip data set on disk: TFDS in sharded TFRecord files, frames as encoded images.

One directory is one data set that `tfds.builder_from_directory` opens. Its splits are video_train,
video_validation, image_train and image_validation; empty ones are absent. A source file is assigned
to a split by the hash of its key: all of its clips are in the same split, and adding files moves
none.
"""

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki.data import tensorflow
from phenaki.data.prepare import manifest
from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import PathLike
from phenaki.io.quiet import no_logs

NAME = "clips"
VERSION = "1.0.0"
SPLITS = ("train", "validation")
Encoding = Literal["jpeg", "png"]
NO_TEMPLATE = "{}"


@dataclasses.dataclass(frozen=True)
class ClipFormat:
    """What all clips of a data set share. `frames` is the length of videos; images have one.

    `fps` of 0: every clip has the rate of its source. `caption_template` has braces where captions
    have the name of a class.
    """

    frames: int
    fps: float
    height: int
    width: int
    encoding: Encoding = "jpeg"
    caption_template: str = NO_TEMPLATE


@dataclasses.dataclass(frozen=True)
class ClipRecord:
    """One clip with encoded frames. `start` in seconds; `source_size` (height, width) in pixels.

    `fps` is the rate of the clip, `source_fps` the mean rate of its source; both are 0 for images.
    `more_captions` are those after the first; data sets of earlier versions have none.
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
    more_captions: tuple[str, ...] = ()

    def example(self) -> dict[str, Any]:
        """The record as an example of `features`; `captioned` is False for a `caption` of None."""
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
            "more_captions": list(self.more_captions),
        }


def features(form: ClipFormat):
    """The TFDS feature dictionary of a clip data set."""
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
            "more_captions": tfds.features.Sequence(tfds.features.Text()),
        }
    )


def encode(
    video: UInt8[np.ndarray, "f h w 3"], encoding: str = "jpeg", quality: int = 95
) -> list[bytes]:
    """Encodes each frame; JPEG without chroma subsampling, which would blur small clips."""
    options = dict(quality=quality, subsampling=0) if encoding == "jpeg" else {}
    encoded = []
    for frame in video:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, encoding, **options)
        encoded.append(buffer.getvalue())
    return encoded


def split_of(key: str, validation: float) -> str:
    """Returns "train", or "validation" for the fraction `validation` of all keys."""
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    return SPLITS[int.from_bytes(digest[:8], "big") < validation * 2**64]


def describe(directory: Path, form: ClipFormat):
    """The TFDS DatasetInfo of a data set to be written to `directory`."""
    tfds = tensorflow.datasets()
    identity = tfds.core.DatasetIdentity(
        name=NAME,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(directory),
        module_name="phenaki",
    )
    return tfds.core.DatasetInfo(
        builder=identity,
        description="Captioned clips and images; splits are kind_split.",
        features=features(form),
        metadata=tfds.core.MetadataDict(dataclasses.asdict(form)),
    )


@dataclasses.dataclass(frozen=True)
class SetFile:
    """One TFRecord file of a data set; `count` clips of the split `split`."""

    split: str
    path: str
    count: int

    @property
    def kind(self) -> str:
        """ "video" or "image"."""
        return self.split.partition("_")[0]


def files(directory: PathLike) -> list[SetFile]:
    """All files of a data set, in the same order on every host."""
    data, _ = open_set(directory)
    return [
        SetFile(split, os.fspath(path), count)
        for split, info in sorted(data.info.splits.items())
        for path, count in zip(info.filepaths, info.shard_lengths, strict=True)
    ]


def open_set(directory: PathLike):
    """The TFDS builder and the `ClipFormat` of a data set.

    Raises:
        UserError: not a directory that `prepare_data.py` or `shapes.tfds` wrote, or its JSON files
            have other checksums than when it was written.
    """
    tfds = tensorflow.datasets()
    if not paths.is_file(paths.path(directory) / "features.json"):
        raise UserError(f"{directory}: not a data set; scripts/prepare_data.py writes one.")
    manifest.check_facts(os.fspath(directory))
    with no_logs():
        builder = tfds.builder_from_directory(os.fspath(directory))
    fields = dataclasses.fields(ClipFormat)
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    metadata = builder.info.metadata or {}
    if not required <= set(metadata) or "video" not in builder.info.features:
        raise UserError(
            f"{directory}: a data set, but not of clips; scripts/prepare_data.py writes one."
        )
    stored = {field.name: metadata[field.name] for field in fields if field.name in metadata}
    return builder, ClipFormat(**stored)


def no_split(directory: PathLike, name: str, known: Iterable[str]) -> UserError:
    """The error of a data set without the split `name`, which the config asks for."""
    hint = ""
    if name == "image_train":
        hint = "; give a set with images as config.data.image_sources, or config.data.image_batch=0"
    there = ", ".join(sorted(known))
    return UserError(f"{directory}: has no split {name}; it has {there}{hint}.")
