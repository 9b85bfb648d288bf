"""A process pool that keeps the order of its tasks and isolates crashes and hangs.

A task that kills its worker, or hangs for `TIMEOUT` seconds, is found by running the tasks in
flight alone; only its own result is replaced.
"""

import collections
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

TIMEOUT = 600  # seconds without a heartbeat after which a worker counts as hung
NAME = "phenaki-worker"  # of the processes of the pool


def run(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    workers: int,
    crashed: Callable[[Any], Any] | None,
) -> Generator[Any, None, None]:
    """Yields function(task) in the order of `tasks`.

    Args:
        workers: number of processes; 1 runs in this process, without isolation.
        crashed: called in this process for a task that ends its worker; its result is used instead.
            None raises BrokenProcessPool.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    queue = collections.deque(tasks)
    while queue:
        try:
            with _pool(workers) as pool:
                yield from _until_broken(pool, function, queue, 2 * workers)
        except BrokenProcessPool:
            # One of the tasks in flight killed its worker; run alone, the culprit is known.
            for _ in range(min(2 * workers, len(queue))):
                yield _alone(function, queue.popleft(), crashed)


def _until_broken(pool, function, queue: collections.deque, ahead: int) -> Iterator[Any]:
    """Removes a task from the queue only when its result is known."""
    futures: collections.deque = collections.deque()
    while queue:
        for task in itertools.islice(queue, len(futures), ahead):
            futures.append(pool.submit(function, task))
        result = futures.popleft().result()
        queue.popleft()
        yield result


def _alone(function, task, crashed):
    try:
        with _pool(1) as pool:
            return pool.submit(function, task).result()
    except BrokenProcessPool:
        if crashed is None:
            raise
        return crashed(task)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not fork: forking a process with TensorFlow's threads can deadlock.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    multiprocessing.current_process().name = NAME
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: int) -> None:
    """Ends an orphan: a worker is not notified when its parent is killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def heartbeat(timeout: int = TIMEOUT) -> None:
    """Ends this process if it is a worker and sends no other heartbeat within `timeout` seconds.

    Args:
        timeout: 0 disarms.
    """
    if multiprocessing.current_process().name == NAME:
        signal.alarm(timeout)  # SIGALRM's default action ends the process, also inside C code
