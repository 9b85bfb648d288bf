"""Blocks in which libraries are not heard: what they write to stderr, warn and log.

stderr, Python's filters of warnings and absl's verbosity are the process's. Of two threads that
change one of them and put back what they found, the later puts back the first one's change, and the
process stays mute.
"""

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

from absl import logging as absl_logging

_ALONE = threading.RLock()
_LOCK = threading.Lock()
_HUSHED = threading.local()
_filters = contextlib.ExitStack()
_within = 0  # blocks of `no_warnings`, in all threads


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what C++ libraries write to stderr within the block, one thread at a time."""
    with _ALONE, contextlib.ExitStack() as stack:
        sys.stderr.flush()
        stack.enter_context(no_warnings())
        with contextlib.suppress(OSError):  # stderr is closed
            kept = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
        yield


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """Ignores Python's warnings, in all threads, while any thread is within such a block."""
    global _within
    with _LOCK:
        if not _within:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _within += 1
    try:
        yield
    finally:
        with _LOCK:
            _within -= 1
            if not _within:
                _filters.close()


@contextlib.contextmanager
def no_logs() -> Iterator[None]:
    """Drops this thread's lines to absl's logger below ERROR, and warnings as `no_warnings`."""
    absl_logging.get_absl_logger().addFilter(_heard)  # the same filter only once
    _HUSHED.depth = getattr(_HUSHED, "depth", 0) + 1
    try:
        with no_warnings():
            yield
    finally:
        _HUSHED.depth -= 1


def _heard(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not getattr(_HUSHED, "depth", 0)
