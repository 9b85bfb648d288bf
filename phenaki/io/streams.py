"""Standard output and error that outlive their reader: `| head -1`, a lost ssh, a full disk.

What is printed is no result: where it cannot be written any more, it is dropped.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from phenaki.errors import UserError


class Enduring:
    """A text stream that drops what cannot be written, and then all that follows."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._gone = False

    def write(self, text: str) -> int:
        """Writes `text`, or drops it."""
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        self._attempt(self._stream.flush)

    def _attempt(self, function: Any, *arguments: Any) -> None:
        if self._gone:
            return
        try:
            function(*arguments)
        except OSError:
            self._gone = True
            # What is buffered would fail again when the interpreter ends, with exit code 120.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def result(text: str) -> None:
    """Prints `text`, which is what the command is for: a full disk must not pass for success.

    A reader that goes away has what it wanted.

    Raises:
        UserError: standard output cannot be written.
    """
    stream: Any = getattr(sys.stdout, "_stream", sys.stdout)
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout.flush()
        raise UserError(f"standard output: cannot be written ({error.strerror}).") from None


@contextlib.contextmanager
def enduring() -> Iterator[None]:
    """Makes sys.stdout and sys.stderr `Enduring` while the block runs."""
    _occupy()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Enduring(stream or open(os.devnull, "w")) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Opens descriptors 0 to 2 where they are closed: a file would get them, and all C prints."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
