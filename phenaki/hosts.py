"""Log lines of a job of several processes: each with its host's number, and none of them twice."""

import logging as python_logging
from collections.abc import Callable
from pathlib import Path

from absl import logging

PACKAGE = Path(__file__).parent
OF_ONE_HOST = PACKAGE / "data"  # each host reads other data; other lines are the same on all


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
