"""What pages send: JSON whose fields are checked one by one before anything is queued."""

import base64
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from phenaki.errors import UserError
from phenaki.io.clean_text import clean
from phenaki.schema.rules import check
from phenaki.schema.sampling import SEED
from phenaki.types import VideoSpec

TEXT = 2000  # characters of a prompt
TAKES = 6  # of one call


NETWORKS = ("critic", "student")  # besides the model; a page may ask for them


class Prompt(NamedTuple):
    """A prompt with everything that a page may set; None is the model's own."""

    text: str | None
    seed: int
    takes: int
    options: dict[str, Any]  # of `phenaki.sampling.options`; those of `NETWORKS` are True or absent


def prompt(form: Any) -> Prompt:
    """The prompt of a form.

    Raises:
        UserError: a field is not what it must be.
    """
    if not isinstance(form, dict):
        raise UserError("the form must be a JSON object.")
    options: dict[str, Any] = {
        "guidance": number(form, "guidance"),
        "temperature": number(form, "temperature"),
        "steps": whole(form, "steps", 1, 1000),
        "negative": text(form, "negative"),
    }
    options = {name: value for name, value in options.items() if value is not None}
    options |= {name: True for name in NETWORKS if form.get(name)}
    takes = whole(form, "takes", 1, TAKES)
    return Prompt(text(form, "prompt"), seed(form), takes or 1, options)


def text(form: Mapping[str, Any], name: str) -> str | None:
    """A text, cleaned; None where it is empty."""
    given = form.get(name)
    if given is None:
        return None
    if not isinstance(given, str) or len(given) > TEXT:
        raise UserError(f"{name} must be a text of at most {TEXT} characters.")
    return clean(given) or None


def number(form: Mapping[str, Any], name: str) -> float | None:
    """A number, finite; None where it is empty."""
    given = form.get(name)
    if given in (None, ""):
        return None
    try:
        value = float(given) if isinstance(given, int | float) else math.nan
    except OverflowError:
        value = math.inf
    if isinstance(given, bool) or not math.isfinite(value):
        raise UserError(f"{name}={str(given)[:40]} must be a number.")
    return value


def whole(form: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """A whole number in a range; None where it is empty."""
    given = number(form, name)
    if given is None:
        return None
    if given != int(given) or not least <= given <= most:
        raise UserError(f"{name}={given:g} must be a whole number from {least} to {most}.")
    return int(given)


def seed(form: Mapping[str, Any]) -> int:
    """The seed: a text of digits, since a page's numbers have 53 bits; 0 where it is empty."""
    given = str(form.get("seed") or "0").strip()
    if not given.isascii() or not given.isdigit() or len(given) > 20:
        raise UserError(f"seed={given[:40]} must be a whole number from 0 to 2**64 - 1.")
    check("seed", int(given), SEED)
    return int(given)


def mask(form: Mapping[str, Any], spec: VideoSpec, frames: int) -> Bool[np.ndarray, "f h w"]:
    """The painted pixels: base64 of bits, frame by frame, row by row.

    Raises:
        UserError: they are not of this size, or nothing is painted.
    """
    shape = (frames, spec.height, spec.width)
    count = int(np.prod(shape))
    try:
        content = base64.b64decode(str(form.get("mask")), validate=True)
    except ValueError:  # no base64, or no ASCII
        content = b""
    if len(content) != -(-count // 8):
        raise UserError(f"the mask must have {count} bits, one a pixel of {frames} frames.")
    bits = np.unpackbits(np.frombuffer(content, np.uint8))[:count].astype(bool).reshape(shape)
    if not bits.any():
        raise UserError("nothing is painted: paint over what is to be sampled.")
    return bits
