"""Preemption handling and a hang watchdog."""

import contextlib
import faulthandler
import signal
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils


def as_sigterm(number: int, frame: Any) -> None:
    """A signal handler that takes the signal for SIGTERM."""
    del number, frame
    signal.raise_signal(signal.SIGTERM)


class PreemptionSignal:
    """Whether any process of the job received SIGTERM or SIGHUP.

    Schedulers send the first before a preemption; a terminal or connection that ends sends the
    second, unless it is ignored (nohup). Installs signal handlers; `close` restores those before.
    """

    def __init__(self):
        self._given = False
        self._ticks = 0
        self._previous = contextlib.ExitStack()
        if threading.current_thread() is not threading.main_thread():
            return
        handlers: dict[int, Any] = {signal.SIGTERM: self._receive, signal.SIGHUP: self._receive}
        if jax.process_count() > 1:
            # JAX installs its own handler of SIGTERM and tells all processes.
            handlers = {signal.SIGHUP: as_sigterm}
        for number, handler in handlers.items():
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                previous = signal.signal(number, handler)
                self._previous.callback(signal.signal, number, previous)

    def close(self) -> None:
        """Restores the previous signal handler."""
        self._previous.close()

    def _receive(self, number, frame) -> None:
        self._given = True

    def given(self) -> bool:
        """Call it once per step in every process: all of them see the signal at the same step."""
        self._ticks += 1
        if jax.process_count() > 1 and not self._given:
            self._given = multihost_utils.reached_preemption_sync_point(self._ticks)
        return self._given


class Watchdog:
    """Ends the process `minutes` after the last `kick`, with the stacks of all threads on stderr.

    All hosts of a job wait for one that hangs; the stacks show which one waits for something else.
    0 minutes disable it.
    """

    def __init__(self, minutes: float | int):
        self._seconds = 60 * minutes
        self.kick()

    def kick(self) -> None:
        """Restarts the timer."""
        if self._seconds:
            stderr = sys.__stderr__ or 2
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=stderr)

    def close(self) -> None:
        """Stops the timer."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
