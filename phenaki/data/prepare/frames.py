"""A video that lies as pictures, one per frame, to clips by the rule of time of video files."""

import hashlib
import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from phenaki.data.prepare import images, video
from phenaki.data.prepare.items import Frames


def clips(
    media: Frames, *, frames: int, fps: float, height: int, width: int
) -> Iterator[video.Clip]:
    """As `video.clips`: clip frame k shows the last picture with time <= t0 + k / fps.

    Raises:
        UnreadableMedia: a broken picture, or fewer than `frames`.
    """
    rate = Fraction(media.fps or fps).limit_denominator(100_000)
    step = rate / Fraction(fps).limit_denominator(100_000)
    indices = itertools.takewhile(
        lambda index: index < len(media.images), (int(k * step) for k in itertools.count())
    )
    buffer, start, size, count = [], 0, (0, 0), 0
    for number, index in enumerate(indices):
        image = _image(media.images[index])
        size = (image.height, image.width)
        buffer.append(images.fit(image, height, width))
        if len(media.images) == 1:
            yield video.Clip(0.0, np.stack(buffer), size)
            return
        if len(buffer) == frames:
            yield video.Clip(start / fps, np.stack(buffer), size, float(rate))
            buffer, start, count = [], number + 1, count + 1
    if not count:
        reason = f"too short: {len(buffer)} frames at {fps:g} fps, {frames} needed"
        raise images.UnreadableMedia("frames", reason)


def _image(picture: Path | bytes | np.ndarray) -> Image.Image:
    if isinstance(picture, np.ndarray):
        grey = picture.shape[-1] == 1
        return Image.fromarray(picture[..., 0] if grey else picture[..., :3]).convert("RGB")
    return images.read_image(io.BytesIO(picture) if isinstance(picture, bytes) else picture)


def sha256(media: Frames) -> str:
    """Of all pictures, one after another."""
    digest = hashlib.sha256()
    for picture in media.images:
        if isinstance(picture, Path):
            digest.update(picture.read_bytes())
        else:
            digest.update(picture if isinstance(picture, bytes) else picture.tobytes())
    return digest.hexdigest()
