"""Tasks in several processes, in order; one that kills or hangs its process costs itself alone."""

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

PATIENCE = 600  # seconds without a sign of life before a decoder is taken to hang
_in_worker = False


def run(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    workers: int,
    crashed: Callable[[Any], Any] | None,
) -> Generator[Any, None, None]:
    """Yields function(task) in the order of `tasks`.

    Args:
        workers: processes; 1 works in this very one, where a crash is everybody's.
        crashed: called here for a task that ends its process; its result takes the place. None
            raises BrokenProcessPool.
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
            # FFmpeg died on one of the files under way: only alone can the culprit be told.
            for _ in range(min(2 * workers, len(queue))):
                yield _alone(function, queue.popleft(), crashed)


def _until_broken(pool, function, queue: collections.deque, ahead: int) -> Iterator[Any]:
    """Removes a task from the queue only once its result is known."""
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
    # Fresh processes: forking one that runs TensorFlow's threads can hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    global _in_worker
    _in_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """Nothing else tells a worker that its parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def alive(alone: bool = True) -> None:
    """Says that work goes on; after `PATIENCE` seconds of silence the process is ended.

    Args:
        alone: False takes the watch off.
    """
    if _in_worker:
        signal.alarm(PATIENCE if alone else 0)  # the signal's default ends the process
