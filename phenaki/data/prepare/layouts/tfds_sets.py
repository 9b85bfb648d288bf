"""TFDS data sets on disk, opened by name or folder; nothing is downloaded or built."""

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from phenaki.data import tensorflow
from phenaki.data.prepare.items import (
    FrameSequence,
    Inventory,
    MediaKind,
    RawItem,
    Skipped,
    WorkUnit,
    split_named,
    words,
)
from phenaki.data.prepare.layouts import stored, walk
from phenaki.errors import UserError
from phenaki.io.clean_text import clean

PREFIX = "tfds:"
HOME = "~/tensorflow_datasets"  # unless TFDS_DATA_DIR is set, as in TFDS
_FIELDS = ("media", "caption", "nsfw")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Paths of the images, the caption and the flag in an example; a/b is nested.

    `fps` of None: the rate is unknown or does not matter, and every image is one frame of a clip.
    `cameras` are the fields of the same scene by other cameras, `media` among them.
    """

    media: str
    caption: str | None = None
    nsfw: str | None = None
    fps: float | None = None
    cameras: tuple[str, ...] = ()


KNOWN = {
    # The published numbers are of image_aux1; --fields=media=image_main takes the other camera.
    "bair_robot_pushing_small": Fields("image_aux1", cameras=("image_aux1", "image_main")),
    "davis": Fields("video/frames", fps=24.0),
    "laion400m": Fields("image", "caption", "nsfw"),
    "moving_mnist": Fields("image_sequence"),
    "robonet": Fields("video"),
    "starcraft_video": Fields("rgb_screen"),
    "ucf101": Fields("video", "label", fps=25.0),
    "webvid": Fields("video", "caption", fps=30.0),
}


def directory(name: str) -> Path:
    """Directory of tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG/VERSION: the newest version.

    Raises:
        UserError: not on disk.
    """
    home = Path(os.environ.get("TFDS_DATA_DIR") or HOME).expanduser()
    top = home / name.removeprefix(PREFIX)
    found = [path.parent for path in top.glob("**/features.json")]
    if not found:
        raise UserError(
            f"{name}: no such data set in {home} (set TFDS_DATA_DIR for another); prepare it "
            "with TFDS first, nothing is downloaded here."
        )
    parents = {path.parent for path in found}
    if len(parents) > 1:
        names = sorted(path.relative_to(home).as_posix() for path in parents)
        raise UserError(f"{name}: has several configs; name one: {PREFIX}{names[0]}.")
    return max(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])


def is_set(root: Path) -> bool:
    """Whether the folder itself is a TFDS data set."""
    return all((root / name).is_file() for name in ("features.json", "dataset_info.json"))


def find(request: walk.Request) -> Inventory:
    """Each file of each split is a unit.

    Raises:
        UserError: the field of the images is unknown, a field does not exist, or another file
            format.
    """
    with tensorflow.quiet_logs():
        data = tensorflow.datasets().builder_from_directory(os.fspath(request.root))
    fields = _fields(request, data)
    units = []
    for split, info in data.info.splits.items():
        for path in map(Path, info.filepaths):
            if "tfrecord" not in path.name:
                raise UserError(f"{path}: only TFDS sets in tfrecord files are read.")
            reader = functools.partial(examples, request.root, path, split, fields)
            units.append(WorkUnit(path.name, reader=reader, container=path))
    named = ", ".join(f"{f}={v}" for f in _FIELDS if (v := getattr(fields, f)))
    rate = f"at {fields.fps:g} fps" if fields.fps else "each image one frame of the clips"
    layout = f"TFDS {data.info.full_name}: {named}, {rate}"
    if others := [camera for camera in fields.cameras if camera != fields.media]:
        layout += f" (the other camera: --fields=media={others[0]})"
    camera = fields.media if fields.cameras else None
    return Inventory(layout, tuple(units), camera=camera)


def _fields(request: walk.Request, data) -> Fields:
    chosen = {name: value for name, value in request.fields.items() if name in _FIELDS}
    if unknown := sorted(set(request.fields) - set(chosen)):
        raise UserError(f"--fields={unknown[0]}: must be one of {', '.join(_FIELDS)}.")
    known = KNOWN.get(data.info.name)
    features = _names(data.info.features)
    if known is None and "media" not in chosen:
        raise UserError(
            f"{request.root}: {data.info.name} is unknown; name the field of its images: "
            f"--fields=media=NAME,caption=NAME. It has {features}."
        )
    names: dict[str, Any] = dict(chosen)
    fields = dataclasses.replace(known or Fields(chosen["media"]), **names)
    if request.source_fps:
        fields = dataclasses.replace(fields, fps=request.source_fps)
    for name in _FIELDS:
        at = data.info.features
        for part in (getattr(fields, name) or "").split("/"):
            if part and part not in _children(at):
                given = f"--fields={name}={getattr(fields, name)}"
                raise UserError(f"{given}: {data.info.name} has only {_names(at)} there.")
            at = _children(at)[part] if part else at
    return fields


def _children(feature: Any) -> Mapping[str, Any]:
    """The features inside one: of a dictionary, also of each step of a sequence of them."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return dict(feature.items()) if hasattr(feature, "items") else {}


def _names(feature: Any) -> str:
    return ", ".join(sorted(_children(feature)))  # their own order is not deterministic


def examples(root: Path, path: Path, split: str, fields: Fields) -> Iterator[RawItem | Skipped]:
    """The examples of one file of a data set."""
    features = _features(root)
    for number, record in enumerate(stored.serialized(path, path.name)):
        name = f"{path.name}/{number:09d}"
        if isinstance(record, Skipped):
            yield record
            continue
        try:
            example = features.deserialize_example_np(record)
        except Exception as error:  # TFDS, TensorFlow and protobuf raise many types
            yield Skipped(name, f"not readable: {str(error).splitlines()[0][:80]}")
            continue
        images = np.asarray(_at(example, fields.media))
        if images.ndim not in (3, 4) or images.dtype != np.uint8:
            yield Skipped(name, f"{fields.media} is {images.dtype}{list(images.shape)}, not images")
            continue
        caption, nsfw = (_words(features, example, f) for f in (fields.caption, fields.nsfw))
        kind: MediaKind = "image" if images.ndim == 3 or len(images) == 1 else "video"
        frames = FrameSequence(list(images.reshape(-1, *images.shape[-3:])), fields.fps)
        yield RawItem(name, kind, frames, caption, split_named(split), nsfw)


@functools.lru_cache(1)
def _features(root: Path):
    with tensorflow.quiet_logs():
        return tensorflow.datasets().features.FeaturesDict.from_config(os.fspath(root))


def _at(tree: Any, path: str) -> Any:
    """The value at a path; of an episode, those of its steps."""
    for place, name in enumerate(names := path.split("/")):
        if not isinstance(tree, Mapping):
            return np.stack([_at(step, "/".join(names[place:])) for step in tree])
        tree = tree[name]
    return tree


def _words(features, example: Any, path: str | None) -> str | None:
    """A text, or the name of a class: ApplyEyeMakeup becomes apply eye makeup."""
    if path is None:
        return None
    value = _at(example, path)
    feature = features
    for name in path.split("/"):
        feature = _children(feature)[name]
    if hasattr(feature, "int2str"):
        if int(value) < 0:
            return None
        name = feature.int2str(int(value))
        if path == "nsfw":
            return name
        return words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return clean(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
