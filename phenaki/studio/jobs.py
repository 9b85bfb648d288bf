"""The queue of the studio: one job at a time, in order; waiting jobs know their place.

A job's work calls `Job.show` after every decoding step and every window. That is where it ends:
when it was cancelled, or when no page has listened to it for `ALONE` seconds.
"""

import collections
import ctypes
import secrets
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from phenaki.errors import UserError

ALONE = 5.0  # seconds without a listener: longer than a reload takes
WAITING_EACH, WAITING = 4, 40  # jobs that may wait, of one owner and of all
LARGE = ("preview", "tokens", "grid", "drift")  # fields of running jobs only
REMEMBERED_EACH, REMEMBERED = 20, 400  # finished jobs that are remembered, of one owner and of all


class Cancelled(Exception):
    """The job ends here: nobody wants its result."""


class QueueFull(UserError):
    """There are too many jobs; try again later."""


class Job:
    """One piece of work of one owner.

    Attributes:
        state: "waiting", "running", "done", "cancelled" or "failed".
        about: the story that it makes; empty for other jobs.
        shown: what a page shows of it, replaced by each `show`; plain JSON.
        version: changes with what a page shows.
    """

    def __init__(self, owner: str, kind: str, work: Callable[["Job"], Any], about: str = ""):
        self.id, self.owner, self.kind, self.work = secrets.token_urlsafe(12), owner, kind, work
        self.about = about
        self.state, self.version, self.place = "waiting", 0, 0
        self.shown: dict[str, Any] = {}
        self._cancelled, self._listeners, self._left = False, 0, time.monotonic()
        self._lock = threading.Lock()

    def show(self, **fields: Any) -> None:
        """Shows `fields`, in place of earlier ones of these names.

        Raises:
            Cancelled: the job is to end.
        """
        self.check()
        self.shown = self.shown | fields
        self.version += 1

    def check(self) -> None:
        """Raises `Cancelled` if the job is to end."""
        if self._cancelled or self.is_alone():
            raise Cancelled

    def cancel(self) -> None:
        """Ends the job at its next step."""
        self._cancelled = True

    def is_alone(self) -> bool:
        """Whether no page has listened for a while."""
        with self._lock:
            return not self._listeners and time.monotonic() - self._left > ALONE

    def listen(self, number: int) -> None:
        """Counts pages that listen: 1 for one more, -1 for one less."""
        with self._lock:
            self._listeners += number
            self._left = time.monotonic()

    def move(self, state: str, **fields: Any) -> None:
        """Changes the state."""
        self.shown = self.shown | fields
        self.state = state
        if self.over:  # of hundreds that are remembered, the small fields
            self.shown = {name: x for name, x in self.shown.items() if name not in LARGE}
        self.version += 1

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ("done", "cancelled", "failed")

    def snapshot(self) -> dict[str, Any]:
        """What a page is told, as JSON."""
        own = dict(id=self.id, kind=self.kind, state=self.state, place=self.place)
        return {**self.shown, **own, "version": self.version}


class Queue:
    """Jobs in the order in which they came, and the thread that does them."""

    def __init__(self):
        self._waiting: collections.deque[Job] = collections.deque()
        self._jobs: collections.OrderedDict[str, Job] = collections.OrderedDict()
        self._running: Job | None = None
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="studio jobs", daemon=True)
        self._thread.start()

    def add(self, owner: str, kind: str, work: Callable[[Job], Any], about: str = "") -> Job:
        """A new last job; `work` returns the fields that are shown when it is done.

        Raises:
            QueueFull: too many wait.
        """
        job = Job(owner, kind, work, about)
        with self._change:
            own = sum(other.owner == owner for other in self._waiting)
            if own >= WAITING_EACH or len(self._waiting) >= WAITING:
                whose = "yours" if own >= WAITING_EACH else "jobs"
                count = own if own >= WAITING_EACH else len(self._waiting)
                raise QueueFull(f"{count} of {whose} are waiting; cancel one, or try again later.")
            self._waiting.append(job)
            self._jobs[job.id] = job
            self._forget(owner)
            self._number()
            self._change.notify_all()
        return job

    def find(self, owner: str, number: str) -> Job | None:
        """The job of this id, if it is of this owner."""
        job = self._jobs.get(number)
        return job if job is not None and job.owner == owner else None

    def cancel(self, job: Job) -> None:
        """Ends a job: at once where it waits, at its next step where it runs."""
        job.cancel()
        with self._change:
            if job in self._waiting:
                self._waiting.remove(job)
                job.move("cancelled")
                self._number()

    def makes(self, about: str) -> bool:
        """Whether a job that runs or waits makes this story."""
        with self._change:
            return any(job.about == about and not job.over for job in self._jobs.values())

    def busy(self) -> int:
        """How many jobs run or wait."""
        with self._change:
            return len(self._waiting) + (self._running is not None)

    def close(self) -> None:
        """Ends the running job at its next step, and all that wait."""
        with self._change:
            self._closed = True
            for job in (*self._waiting, *([self._running] if self._running else [])):
                job.cancel()
            self._change.notify_all()
        self._thread.join(timeout=60)

    def _forget(self, owner):
        for each, count in ((owner, REMEMBERED_EACH), (None, REMEMBERED)):
            over = [j for j in self._jobs.values() if j.over and each in (None, j.owner)]
            for job in over[: max(0, len(over) - count)]:
                del self._jobs[job.id]

    def _number(self):
        ahead = self._running is not None
        for place, job in enumerate(self._waiting):
            if job.place != place + ahead:
                job.place = place + ahead
                job.version += 1

    def _next(self) -> Job | None:
        with self._change:
            self._running = None
            self._number()
            while not self._waiting and not self._closed:
                self._change.wait()
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            self._running.place = 0
            self._number()
            return self._running

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.check()
                job.move("running")
                job.move("done", **(job.work(job) or {}))
            except Cancelled:
                job.move("cancelled")
            except UserError as error:
                job.move("failed", error=str(error))
            except Exception as error:
                logging.exception("a %s job failed", job.kind)
                line = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                job.move("failed", error=f"this should not happen: {line}")
            job.work = _nothing  # frees what it holds
            give_back()


def _nothing(job: Job) -> None:
    del job


def give_back() -> bool:
    """Returns what jobs freed to the system; False where the C library is not glibc.

    Its allocator keeps some 200 MB of freed pieces of a few films, more after other jobs.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and trim(0) >= 0
