"""Image sequences as clips, sampled by timestamp like video files."""

import hashlib
import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from phenaki.data.prepare import video
from phenaki.data.prepare.items import FrameSequence
from phenaki.io import images, pixels


def clips(
    media: FrameSequence, *, frames: int, fps: float | None, height: int, width: int
) -> Iterator[video.Clip]:
    """As `video.clips`: clip frame k shows the last image with time <= t0 + k / fps.

    With `fps` of None every image is one frame, at the rate of the sequence (0: unknown).

    Raises:
        UnreadableMedia: an unreadable image, or fewer than `frames` frames.
    """
    rate = Fraction(media.fps or fps or 0).limit_denominator(100_000)
    step = rate / Fraction(fps).limit_denominator(100_000) if fps else Fraction(1)
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
            seconds = float(start * step / rate) if rate else 0.0
            yield video.Clip(seconds, np.stack(buffer), size, float(rate), fps or float(rate))
            buffer, start, count = [], number + 1, count + 1
    if not count:
        at = f" at {fps:g} fps" if fps else ""
        reason = f"too short: {len(buffer)} frames{at}, {frames} needed"
        raise images.UnreadableMedia("frames", reason)


def _image(source: Path | bytes | np.ndarray) -> Image.Image:
    if isinstance(source, np.ndarray):
        gray = source.shape[-1] == 1
        return pixels.srgb(Image.fromarray(source[..., 0] if gray else source))
    return images.read_image(io.BytesIO(source) if isinstance(source, bytes) else source)


def sha256(media: FrameSequence) -> str:
    """Hash of the concatenated images."""
    digest = hashlib.sha256()
    for image in media.images:
        if isinstance(image, Path):
            digest.update(image.read_bytes())
        else:
            digest.update(image if isinstance(image, bytes) else image.tobytes())
    return digest.hexdigest()
