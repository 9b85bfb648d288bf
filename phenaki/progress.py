"""One line of progress on stderr: count, percentage, rate and time left."""

import sys
import time
from collections import deque
from types import TracebackType


class Progress:
    """One line of progress on stderr: count, percentage, rate and time left.

    ``total`` is the number of items, ``done`` the number that a resumed run has already; nothing is
    shown without ``shown``, as on all but one host of a job. On a
    terminal the line is rewritten in place; elsewhere a new line appears at most every 10 seconds.
    A context manager: leaving it closes the line.
    """

    def __init__(self, total: int, what: str, done: int = 0, shown: bool = True):
        self.total, self.what, self.done, self.shown = total, what, done, shown
        self._first, self._start = done, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._period = 0.2 if self._terminal else 10.0
        self._shown = self._start
        # The rate is over the last few lines, from the end of the first item: that one compiled.
        self._recent: deque[tuple[float, int]] = deque(maxlen=50 if self._terminal else 6)
        self._note = ""
        self._open = True

    def update(self, count: int = 1, note: str = "") -> None:
        """Counts ``count`` more items as done; ``note`` (a loss, a file) ends the line."""
        self.done += count
        self._note = note or self._note
        now = time.monotonic()
        if not self._recent:
            self._recent.append((now, self.done))
        if now - self._shown >= self._period:
            self._show(now)

    def close(self, note: str = "") -> None:
        """Writes the last line, with the total time and ``note``. A second call does nothing."""
        if self._open:
            self._open = False
            seconds = time.monotonic() - self._start
            rate = (self.done - self._first) / max(seconds, 1e-9)
            end = f", {note}\n" if note else "\n"
            self._write(f"{self._count()}, {rate:.3g}/s, took {_clock(seconds)}", end)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _show(self, now: float) -> None:
        self._shown = now
        since, before = self._recent[0]
        rate = (self.done - before) / max(now - since, 1e-9)
        self._recent.append((now, self.done))
        left = _clock((self.total - self.done) / rate) if rate > 0 else "?"
        note = f", {self._note}" if self._note else ""
        line = f"{self._count()}, {rate:.3g}/s, {left} left{note}"
        self._write(line, end="" if self._terminal else "\n")

    def _count(self) -> str:
        percent = 100 * self.done // max(self.total, 1)
        return f"{self.what}: {self.done}/{self.total} ({percent}%)"

    def _write(self, line: str, end: str) -> None:
        if not self.shown:
            return
        # \x1b[K clears the rest of a longer line before.
        sys.stderr.write(f"\r{line}\x1b[K{end}" if self._terminal else line + end)
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, which shows more than lines of text."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Bar:
    """A bar of one line that is rewritten in place: in a notebook's cell, or on stderr."""

    WIDTH = 24

    def __init__(self):
        self._cell = None

    def show(self, fraction: float, what: str) -> None:
        """Shows the `fraction` that is done, 0 to 1, and `what` it is."""
        full = round(self.WIDTH * fraction)
        line = f"{'█' * full}{'░' * (self.WIDTH - full)} {what}"
        if not in_notebook():
            sys.stderr.write(f"\r{line}\x1b[K" + ("\n" if fraction >= 1 else ""))
            sys.stderr.flush()
            return
        content = {"text/plain": line}
        if self._cell is None:
            self._cell = sys.modules["IPython"].display.display(content, raw=True, display_id=True)
        else:
            self._cell.update(content, raw=True)
