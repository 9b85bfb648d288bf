"""Imports of libraries that write to stderr while they load, and have no setting for it."""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator

# stderr is the process's: of two threads within blocks, the one that leaves last would restore
# what the other one had put there.
_ALONE = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops what C++ libraries write to stderr within the block, one thread at a time."""
    with _ALONE, contextlib.ExitStack() as stack:
        sys.stderr.flush()
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError):  # stderr is closed
            kept = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
        yield
