"""The captions of one item as people write them: a text, a list, or a list written as text."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from phenaki.data.prepare import text_files
from phenaki.io.clean_text import clean

NAMES = ("caption", "text", "captions", "cap", "sentence", "prompt")  # of a caption in an object
# Of a flag or a probability, in any case.
NSFW = (
    *("nsfw", "is_nsfw", "nsfw_flag", "nsfw_label", "unsafe", "is_unsafe", "punsafe"),
    *("nsfw_score", "nsfw_prob", "nsfw_probability", "unsafe_score", "unsafe_probability"),
)
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*{_STRING}(?:(?:\s*,\s*|\s+){_STRING})*\s*,?\s*\]", re.DOTALL)


def of(value: Any) -> tuple[str, ...]:
    """The captions in a value of a table or of JSON, in order, without repetitions.

    A value is a text, a list of captions, an object with a caption, or a text that holds a list:
    JSON's, Python's, or NumPy's, which has no commas.
    """
    return tuple(dict.fromkeys(filter(None, map(clean, _texts(value)))))


def flag_of(content: Mapping[str, Any]) -> str | None:
    """The NSFW flag of an object or a row, as text; None without one."""
    names = {name.lower(): name for name in content}
    values = (content[names[name]] for name in NSFW if name in names)
    return next((str(value) for value in values if value is not None and value != ""), None)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        parsed = _parsed(value.strip())
        return [value] if parsed is None else parsed
    if isinstance(value, list | tuple):
        parts = ([part] if isinstance(part, str) else _texts(part) for part in value)
        return [text for texts in parts for text in texts]
    if isinstance(value, dict):
        return next((texts for name in NAMES if (texts := _texts(value.get(name)))), [])
    if isinstance(value, bytes):
        return _texts(text_files.decoded(value))
    missing = value is None or isinstance(value, bool) or value != value  # NaN
    return [] if missing else [str(value)]


def _parsed(text: str) -> list[str] | None:
    """The captions of a list or an object that is written as text; None for any other text."""
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        if not _LIST.fullmatch(text):
            return None
        return [ast.literal_eval(part) for part in re.findall(_STRING, text, re.DOTALL)]
    numbers = isinstance(content, list) and any(isinstance(one, int | float) for one in content)
    return None if numbers else _texts(content)
