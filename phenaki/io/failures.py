"""Why a checkpoint could not be read or written, from the messages of the libraries that tried."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging

from phenaki.errors import bucket_reason

# What this machine or its disk lacks or denies, which does not make a checkpoint damaged.
LACKS = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.ESTALE,
    errno.ETIMEDOUT,
)  # fmt: skip


def lack(error: Exception) -> str | None:
    """Why a checkpoint cannot be read now, if not because it is damaged."""
    words = map(os.strerror, LACKS)
    return next((word for word in words if word in str(error)), None)


@contextlib.contextmanager
def quiet_ends() -> Iterator[None]:
    """Within the block, and after one that failed, what TensorStore ends late says nothing.

    After a failed read or write Orbax closes its event loop, and each of the others would print a
    traceback when it ends.
    """
    hush_orbax()
    before = sys.unraisablehook

    def hook(what):
        if what.exc_type is not RuntimeError or "Event loop is closed" not in str(what.exc_value):
            before(what)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before


def hush_orbax() -> None:
    """Keeps Orbax from logging the whole stack of a failed write, which it then raises."""
    logging.get_absl_logger().addFilter(_not_from_orbax)  # the same filter only once


def _not_from_orbax(record: Any) -> bool:
    return "/orbax/" not in record.pathname


def reason(error: Exception) -> str:
    """The system's message, where the libraries' message contains it."""
    text = bucket_reason(error) or " ".join(str(error).split())
    for code in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EMFILE,
    ):
        if os.strerror(code) in text:
            return os.strerror(code)
    return text[:300]
