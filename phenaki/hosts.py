"""The hosts of a job: they end together, and their log lines have their numbers."""

import atexit
import contextlib
import itertools
import logging as python_logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import logging

PACKAGE = Path(__file__).parent
OF_ONE_HOST = PACKAGE / "data"  # each host reads other data; other lines are the same on all
# Keys of the job's coordination service, by host: "CODE MESSAGE" of its end; a count as it lives.
ENDS = "phenaki/ends/"
BEATS = "phenaki/beats/"
PERIOD = 1.0  # seconds between two looks at them
WAITS = 15.0  # seconds between two lines of a process that waits for others
JOIN_TIMEOUT = 30.0  # seconds that the end of a process waits for the thread
AT_END: list[Callable[[], None]] = []  # called before an end that closes nothing
LOST = 134  # another host vanished; JAX's own abort, where it is the first to notice, has it, too


def end(code: int, message: str) -> None:
    """Ends this process and all others of its job with `code`; returns if it is alone.

    JAX would wait five minutes at exit for the other hosts, which wait for this one, and then abort
    all of them. The code is `LOST` for an error (1) that is only the end of another host.
    """
    state = joined()
    if state is None:
        return
    last = message.strip().splitlines()[-1]
    if code == 1 and (gone := _vanished(state)):
        code, last = LOST, f"{gone} vanished ({last})"
        sys.stderr.write(last + "\n")
    try:
        state.client.key_value_set(f"{ENDS}{state.process_id}", f"{code} {last}")
        _linger(state)
    except Exception:  # the service has ended, and with it the job
        pass
    _exit(code)


def _vanished(state: Any) -> str:
    """Names the hosts that neither live nor reported how they ended; "" if there are none."""
    try:
        before = _by_host(state, BEATS)
        time.sleep(5 * PERIOD)
        after, ended = _by_host(state, BEATS), _by_host(state, ENDS)
    except Exception:  # the service is process 0's
        return "host 0"
    silent = {host for host in before if after[host] == before[host]} - set(ended)
    return ", ".join(f"host {host}" for host in sorted(silent - {state.process_id}))


def _by_host(state: Any, prefix: str) -> dict[int, str]:
    found = state.client.key_value_dir_get(prefix)
    return {int(key.rsplit("/", 1)[-1]): value for key, value in found}


def _linger(state: Any) -> None:
    """Waits until the other processes know; process 0, which has the service, longest."""
    time.sleep(PERIOD * (6 if state.process_id == 0 else 3))


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says on stderr, while the block runs, that this process waits for `what`."""
    ended, start = threading.Event(), time.monotonic()

    def say():
        while not ended.wait(WAITS):
            sys.stderr.write(f"waits for {what}, {time.monotonic() - start:.0f} s so far\n")

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def watch() -> None:
    """Starts the thread that ends this process when another one of its job calls `end`."""
    if state := joined():
        thread = threading.Thread(target=_watch, args=(state,), daemon=True)
        thread.start()
        atexit.register(_leave, thread)


def _leave(thread: threading.Thread) -> None:
    """Leaves the job, which waits for the other hosts, and then ends `thread`.

    Python would abort if it ended while the thread is inside the job's service.
    """
    import jax  # late: commands without a job need not load it

    jax.distributed.shutdown()
    thread.join(JOIN_TIMEOUT)


def _watch(state: Any) -> None:
    for beat in itertools.count():
        if state.client is None:
            return
        try:
            state.client.key_value_set(f"{BEATS}{state.process_id}", str(beat), True)
            ends = _by_host(state, ENDS)
        except Exception:  # at the end of the job
            return
        if state.process_id in ends:
            return
        for host, value in ends.items():
            code, message = value.split(" ", 1)
            sys.stderr.write(f"host {host} ended the job: {message}\n")
            if state.process_id == 0:
                _linger(state)
            _exit(int(code))
        time.sleep(PERIOD)


def joined() -> Any:
    """JAX's state of the job; None in a process of its own."""
    distributed = sys.modules.get("jax._src.distributed")
    state = getattr(distributed, "global_state", None)
    return state if state is not None and state.client and state.num_processes > 1 else None


def _exit(code: int) -> None:
    for last in list(AT_END):
        last()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the threads of the libraries, which may be waiting for other hosts


def number_logs(index: Callable[[], int]) -> None:
    """Numbers the lines of this process of a job; drops those that process 0 has, too.

    `index()` is the number of the process, asked for with the first line: it may touch devices. A
    second call does nothing.
    """
    logger = logging.get_absl_logger()
    if not any(isinstance(one, Numbered) for one in logger.filters):
        logger.addFilter(Numbered(index))


class Numbered(python_logging.Filter):
    """Lines of the package that all hosts have are of process 0, all others have a number."""

    def __init__(self, index: Callable[[], int]):
        super().__init__()
        self._index = index

    def filter(self, record: python_logging.LogRecord) -> bool:
        """Whether the line is shown; numbers it where it is of this host alone."""
        path = Path(record.pathname)
        if path.is_relative_to(PACKAGE) and not path.is_relative_to(OF_ONE_HOST):
            return self._index() == 0
        record.msg = f"host {self._index()}: {record.msg}"
        return True
