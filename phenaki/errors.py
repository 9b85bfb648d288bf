"""Errors caused by the user or the environment, reported without a traceback."""

import difflib
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")
_GOOGLE = (["google", "api_core"], ["google", "auth"], ["google", "cloud"])
_BODY = re.compile(r" with body '.*?'(?= when |$)")  # of an answer: a page of HTML or JSON


class UserError(ValueError):
    """What was given cannot work.

    The message says where it was given (a config path, a flag, a file), what it was, the rule and
    the nearest good value. Scripts show it as one line, without a traceback (``phenaki.cli.run``).
    """


class Preempted(Exception):
    """SIGTERM or SIGHUP arrived and the checkpoint is saved.

    Scripts exit with 143, which launchers take for "not done: start it again".
    """


def one_of(field: str, value: Any, table: Mapping[Any, Value]) -> Value:
    """`table[value]`; `field` is the config path or flag that the error names.

    Raises:
        UserError: `value` is not a key of `table`; lists the keys and suggests the nearest.
    """
    if isinstance(value, Hashable) and value in table:
        return table[value]
    known = ", ".join(map(str, table)) or "none"
    raise UserError(f"{field}={value!r} must be one of {known}{did_you_mean(value, table)}.")


def did_you_mean(given: object, known: Iterable[object]) -> str:
    """ "; did you mean NAME?" for the nearest of `known`, or "" where none is near."""
    near = difflib.get_close_matches(str(given), [str(name) for name in known], 1)
    return f"; did you mean {near[0]}?" if near else ""


def bucket_reason(error: BaseException) -> str | None:
    """Why a bucket refused, in one line, if `error` is of the libraries that read and write it."""
    home = (type(error).__module__ or "").split(".")
    # Of a missing object epath makes an OSError without a file name.
    unnamed = isinstance(error, OSError) and error.filename is None and "gs://" in str(error)
    if not (unnamed or home[0] == "tensorflow" or home[:2] in _GOOGLE):
        return None
    text = " ".join(str(getattr(error, "message", "") or error).split())
    return _BODY.sub("", text)[:300]
