"""Being told to stop, and noticing that nothing goes on."""

import contextlib
import faulthandler
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

from phenaki.errors import UserError


class PreemptionSignal:
    """Whether the job was told to stop: SIGTERM to this process, or to any other of the job.

    Schedulers send it before they take a machine away. It listens until it is closed.
    """

    def __init__(self):
        self._given = False
        self._ticks = 0
        self._before = contextlib.ExitStack()
        # With several processes JAX listens itself, and tells all of them.
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGTERM, self._note)
            self._before.callback(signal.signal, signal.SIGTERM, before)

    def close(self) -> None:
        """Listens no more."""
        self._before.close()

    def _note(self, number, frame) -> None:
        self._given = True

    def given(self) -> bool:
        """To be asked once a step, by all processes alike; all hear it at the same step, and on."""
        self._ticks += 1
        if jax.process_count() > 1 and not self._given:
            self._given = multihost_utils.reached_preemption_sync_point(self._ticks)
        return self._given


class Watchdog:
    """Ends the process, with the stack of each of its threads, unless it is put off in time.

    All hosts of a job wait for one that hangs: the stacks tell which one waits for something else.
    `minutes` of 0 is never. It counts until it is closed.
    """

    def __init__(self, minutes: float | int):
        if minutes < 0:
            raise UserError(f"config.guard.hang_minutes={minutes} must be at least 0 (0 is never).")
        self._seconds = 60 * minutes
        self.kick()

    def kick(self) -> None:
        """Work goes on: counts from now."""
        if self._seconds:
            stderr = sys.__stderr__ or 2
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=stderr)

    def close(self) -> None:
        """Never rings."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
