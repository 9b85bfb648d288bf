"""Pixels of image files as 8-bit sRGB over white: ICC profiles, transparency, 9 to 32 bits."""

import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from phenaki.io import tone_mapping

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # modes and the ICC names of their spaces
_ROUNDING = 2  # levels by which two descriptions of sRGB differ
# TIFF's tags BitsPerSample, PhotometricInterpretation, SampleFormat, and a value of the last.
_BITS, _MEANING, _FORMAT, _SIGNED = 258, 262, 339, 2


class UnknownRange(ValueError):
    """Pixels whose black and white are not known."""


class Integers(NamedTuple):
    """How the pixels of a file of more than 8 bits are stored."""

    bits: int = 16
    signed: bool = False
    white_is_zero: bool = False


SIXTEEN_BITS = Integers()


def integers(image: Image.Image) -> Integers:
    """As the tags of a TIFF say; others are scaled to 16 bits by their reader."""
    tags = getattr(image, "tag_v2", {})
    bits, form, meaning = (
        int(np.ravel(tags.get(tag, plain))[0])
        for tag, plain in ((_BITS, 16), (_FORMAT, 1), (_MEANING, 1))
    )
    return Integers(bits, form == _SIGNED, meaning == 0)


def srgb(
    image: Image.Image, stored: Integers = SIXTEEN_BITS, tags: tuple[int, int] | None = None
) -> Image.Image:
    """Converts an image of any mode of Pillow to RGB: managed colours, over white.

    Integers of 9 to 16 bits are scaled from the range of their bits. Those of 32 bits are scaled
    from 16 if all fit into it. Floating-point pixels range from 0 to 1.

    Args:
        tags: (transfer, primaries) of H.273, which an ICC profile overrides.

    Raises:
        UnknownRange: floating-point pixels outside of 0 to 1.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        image = _of_floats(image)
    elif image.mode.startswith("I"):
        image = _of_integers(image, stored)
    elif tags and not profile and tone_mapping.is_needed(*tags):
        image = _of_tags(image, tags)
    if image.has_transparency_data:
        image = _of_clear_colour(image).convert("RGBA")
        if profile:
            managed = _managed(image.convert("RGB"), profile)
            managed.putalpha(image.getchannel("A"))
            image = managed
        return over_white(image)
    if profile:
        return _managed(image if image.mode in _SPACES else image.convert("RGB"), profile)
    return image.convert("RGB")


def over_white(image: Image.Image) -> Image.Image:
    """Composites RGBA over white; returns RGB."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _of_floats(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also for NaN
        raise UnknownRange(f"floating-point pixels from {low:.4g} to {high:.4g}; must be 0 to 1")
    return Image.fromarray(np.rint(values * np.float32(255)).astype(np.uint8))


def _of_integers(image: Image.Image, stored: Integers) -> Image.Image:
    """8-bit gray, transparent where a file says that one level is."""
    values = np.asarray(image).astype(np.int64)
    if stored.bits == 32 and not stored.signed:
        values &= 2**32 - 1  # Pillow reads them as signed
    bits = stored.bits
    if bits == 32 and values.max() < 2**16:
        bits = 17 if stored.signed else 16
    top = 2 ** (bits - stored.signed) - 1
    levels = (values.clip(0, top) * 255 // top).astype(np.uint8)
    gray = Image.fromarray(255 - levels if stored.white_is_zero else levels)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return gray


def _of_tags(image: Image.Image, tags: tuple[int, int]) -> Image.Image:
    """HDR and wide primaries as `tone_mapping.to_sdr` shows them."""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    deep = np.asarray(image.convert("RGB")).astype(np.uint16) * 257
    shown = Image.fromarray(tone_mapping.to_sdr(deep, *tags))
    if alpha:
        shown.putalpha(alpha)
    return shown


def _of_clear_colour(image: Image.Image) -> Image.Image:
    """Pillow keeps 8 bits of a pixel of 16, but all 16 of the colour that is transparent."""
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    return image


def _managed(image: Image.Image, profile: bytes) -> Image.Image:
    """Converts from an ICC profile to sRGB; a profile that is none is ignored, as browsers do."""
    convert = _transform(profile, image.mode)
    return image.convert("RGB") if convert is None else convert.apply(image)


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; None for a profile of sRGB, of another mode or that is corrupt."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        found = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "CMYK":
        return found
    probe = _probe(mode)
    change = np.asarray(found.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return None if np.abs(change).max() <= _ROUNDING else found


def _probe(mode: str) -> Image.Image:
    """Colours from all of the cube, or all grays."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(9, 81, 3))
