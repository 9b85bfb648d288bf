"""Stored clips and images as tensors: their sizes, their crops, and whether they fit a config."""

import functools
from collections.abc import Container
from typing import NamedTuple, Protocol, runtime_checkable

from phenaki.data import format, tensorflow
from phenaki.errors import UserError
from phenaki.io.paths import PathLike


class ClipSize(NamedTuple):
    """The simplest `Spec`."""

    frames: int
    height: int
    width: int
    fps: float


@runtime_checkable
class Spec(Protocol):
    """The fields of `types.VideoSpec` that reading clips depends on."""

    @property
    def frames(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def fps(self) -> float | int: ...


def size(directory: PathLike, split: str, kind: str, frames: int | None = None) -> int:
    """Number of stored examples; 0 if the data set has none of that kind in that split.

    `frames` are those of the clips to be read of them; see `stored_split`.
    """
    data, _ = format.open_set(directory)
    found = data.info.splits.get(stored_split(kind, split, frames, data.info.splits))
    return found.num_examples if found else 0


def stored_split(kind: str, split: str, frames: int | None, stored: Container[str]) -> str:
    """The name of a split, of those `stored`: KIND_SPLIT.

    A clip of one frame is an image: without clips, a data set gives its images as such clips.
    """
    images = f"image_{split}"
    name = f"{kind}_{split}"
    return images if frames == 1 and name not in stored and images in stored else name


def parse(record, corner, form: format.ClipFormat, shape: tuple[int, int, int, int], caption=0):
    """Decodes the crop of `shape` at `corner` (f, y, x) of a record; returns features and key.

    Of several captions the text is the one with the number `caption`, modulo their number;
    `more_captions` are those after the first.
    """
    tf = tensorflow.tensorflow()
    fields = tf.io.parse_single_example(
        record,
        {
            "video": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
            "caption": tf.io.FixedLenFeature([], tf.string),
            "captioned": tf.io.FixedLenFeature([], tf.int64),
            "key": tf.io.FixedLenFeature([], tf.string, default_value=""),
            "more_captions": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
        },
    )
    captions = tf.concat([fields["caption"][None], fields["more_captions"]], 0)
    chosen = tf.cast(caption, tf.int64) % tf.size(captions, tf.int64)
    frames, height, width, _ = shape
    encoded = fields["video"][corner[0] : corner[0] + frames]
    image = functools.partial(_image, form=form)
    video = tf.map_fn(image, encoded, fn_output_signature=tf.uint8)
    video = video[:, corner[1] : corner[1] + height, corner[2] : corner[2] + width]
    return {
        "video": tf.ensure_shape(video, shape),
        "text": captions[chosen],
        "captioned": tf.cast(fields["captioned"], tf.bool),
        "key": fields["key"],
        "more_captions": fields["more_captions"],
    }


def shard(path: str, directory: PathLike, kind: str, spec: Spec):
    """tf.data of the clips of one file in stored order, cropped to the first frames and the centre.

    Features: video, text (the first caption), more_captions [n], captioned and key.
    """
    tf = tensorflow.tensorflow()
    _, form = format.open_set(directory)
    check(directory, kind, form, spec)
    shape = (spec.frames if kind == "video" else 1, spec.height, spec.width, 3)
    corner = (0, (form.height - spec.height) // 2, (form.width - spec.width) // 2)
    step = tf.autograph.experimental.do_not_convert(
        lambda record: parse(record, corner, form, shape)
    )
    return tf.data.TFRecordDataset(path).map(step, num_parallel_calls=tf.data.AUTOTUNE)


def check(directory, kind: str, form: format.ClipFormat, spec: Spec) -> None:
    """Raises `UserError` where stored clips are too small or short, or of another rate.

    One frame of a clip has no rate.
    """
    if form.height < spec.height or form.width < spec.width:
        raise UserError(
            f"{directory}: clips of {form.height}x{form.width} pixels; config.video wants "
            f"{spec.height}x{spec.width}. Prepare the data with a larger --size."
        )
    if kind == "video" and form.frames < spec.frames:
        # Prepared clips have 1 + 2n frames; 16 are scored of clips of 17 (B.2.4).
        raise UserError(
            f"{directory}: clips of {form.frames} frames; {spec.frames} are needed. "
            f"Prepare the data with --frames={spec.frames | 1}."
        )
    # Clips at the native rates of their sources (fps 0) are taken as they are (B.2.4).
    rated = kind == "video" and spec.frames > 1 and form.fps
    if rated and abs(form.fps - spec.fps) > 0.01:
        raise UserError(
            f"{directory}: clips of {form.fps:g} frames a second; config.video.fps={spec.fps:g}. "
            f"Prepare the data with --fps={spec.fps:g}."
        )


def _image(encoded, form: format.ClipFormat):
    tf = tensorflow.tensorflow()
    if form.encoding == "png":
        image = tf.io.decode_png(encoded, channels=3)
    else:
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, (form.height, form.width, 3))
