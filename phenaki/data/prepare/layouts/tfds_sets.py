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
from phenaki.data.prepare import captions, img2dataset
from phenaki.data.prepare.items import (
    FrameSequence,
    Inventory,
    MediaKind,
    RawItem,
    Skipped,
    Split,
    WorkUnit,
    class_caption,
    split_named,
)
from phenaki.data.prepare.layouts import stored, walk
from phenaki.errors import UserError
from phenaki.io.quiet import no_logs

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
    with no_logs():
        data = tensorflow.datasets().builder_from_directory(os.fspath(request.root))
    fields = _fields(request, data)
    units = []
    for split, info in data.info.splits.items():
        for path in map(Path, info.filepaths):
            if "tfrecord" not in path.name:
                raise UserError(f"{path}: only TFDS sets in tfrecord files are read.")
            reader = functools.partial(
                examples, request.root, path, split, fields, request.template
            )
            units.append(WorkUnit(path.name, reader=reader, container=path))
    named = ", ".join(f"{f}={v}" for f in _FIELDS if (v := getattr(fields, f)))
    rate = f"at {fields.fps:g} fps" if fields.fps else "each image one frame of the clips"
    layout = f"TFDS {data.info.full_name}: {named}, {rate}"
    if others := [camera for camera in fields.cameras if camera != fields.media]:
        layout += f" (the other camera: --fields=media={others[0]})"
    found = walk.listing(request.root)
    found.others -= {unit.name for unit in units} | set(found.named("*.json", "*.labels.txt"))
    unread = [Skipped(key, "not of the data set: not read") for key in found.media]
    return Inventory(
        layout,
        tuple(units),
        tuple(found.problems + unread),
        len(found.others),
        tuple(found.unused()),
        classes=_label(data.info.features, fields.caption),
        camera=fields.media if fields.cameras else None,
    )


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
            if part and part not in _fields_of(at):
                given = f"--fields={name}={getattr(fields, name)}"
                raise UserError(f"{given}: {data.info.name} has only {_names(at)} there.")
            at = _fields_of(at)[part] if part else at
    return fields


def _names(feature: Any) -> str:
    return ", ".join(sorted(_fields_of(feature)))  # their own order is not deterministic


def examples(
    root: Path, path: Path, split: str, fields: Fields, template: str = "{}"
) -> Iterator[RawItem | Skipped]:
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
        yield _item(name, images, features, example, split_named(split), fields, template)


def _item(name, images, features, example, split: Split | None, fields: Fields, template: str):
    kind: MediaKind = "image" if images.ndim == 3 or len(images) == 1 else "video"
    shown = list(images.reshape(-1, *images.shape[-3:]))
    if kind == "image" and (size := img2dataset.size(example)):
        left, top, right, bottom = img2dataset.box(shown[0], size)
        shown = [shown[0][top:bottom, left:right]]
    value, label = (_value(features, example, fields.caption), _label(features, fields.caption))
    texts = class_caption(value, template) if label else captions.of(value)
    nsfw = _value(features, example, fields.nsfw)
    return RawItem(name, kind, FrameSequence(shown, fields.fps), texts, split, nsfw)


@functools.lru_cache(1)
def _features(root: Path):
    with no_logs():
        return tensorflow.datasets().features.FeatureConnector.from_config(os.fspath(root))


def _fields_of(features: Any) -> dict[str, Any]:
    """The features by name of a dictionary, also of one in a sequence; {} for others."""
    while hasattr(features, "feature"):
        features = features.feature
    return dict(features.items()) if hasattr(features, "items") else {}


def _feature(features: Any, path: str) -> Any:
    for name in path.split("/"):
        features = _fields_of(features)[name]
    return features


def _at(tree: Any, path: str) -> Any:
    """The value at a path; of an episode, those of its steps."""
    for place, name in enumerate(names := path.split("/")):
        if not isinstance(tree, Mapping):
            return np.stack([_at(step, "/".join(names[place:])) for step in tree])
        tree = tree[name]
    return tree


def _label(features: Any, path: str | None) -> bool:
    """Whether a field holds numbers of classes."""
    return path is not None and hasattr(_feature(features, path), "int2str")


def _value(features: Any, example: Any, path: str | None) -> Any:
    """A text, texts, or the name of a class; "" without one, None without a `path`."""
    if path is None:
        return None
    value = _at(example, path)
    if _label(features, path):
        return _feature(features, path).int2str(int(value)) if int(value) >= 0 else ""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
