"""Warnings while a run trains, each said once until it is well again."""

from collections import deque
from collections.abc import Mapping

from absl import logging
from ml_collections import ConfigDict

from phenaki.train import health


class Watch:
    """Looks at every logged line of a run of `config`."""

    def __init__(self, config: ConfigDict):
        self._config = config
        self._lines: deque[dict] = deque(maxlen=health.RECENT)
        self._sick: set[str] = set()

    def look(self, step: int, scalars: Mapping[str, float | int]) -> None:
        """Warns of what the lines up to `step` show and the one before did not."""
        self._lines.append({"step": step, **scalars})
        for finding in health.read(self._lines, self._config):
            if finding.healthy:
                self._sick.discard(finding.check)
            elif finding.check not in self._sick:
                self._sick.add(finding.check)
                logging.warning(
                    "step %d: not so: %s (%s). %s",
                    step, finding.check, finding.figure, finding.advice,
                )  # fmt: skip
