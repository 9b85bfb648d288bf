"""The files of a run's logs: in its workdir, or in a local folder that is sent to its bucket."""

import tempfile
import time
from pathlib import Path

from absl import logging

from phenaki.errors import bucket_reason
from phenaki.io import paths
from phenaki.io.paths import AnyPath

# Seconds between two uploads of a file: an object in a bucket is written as a whole.
LINES_EVERY, EVENTS_EVERY = 10.0, 120.0


class LogFiles:
    """The local folder `directory` of a run's logs; `workdir` itself where that is local.

    Of a run in a bucket the file `lines` is fetched first, to be appended to.
    """

    def __init__(self, workdir: AnyPath, lines: str):
        self._lines, self._sent = lines, dict[str, tuple[float, int]]()
        self._remote = None if isinstance(workdir, Path) else workdir
        if self._remote is None:
            self.directory = Path(workdir)
            return
        self._folder = tempfile.TemporaryDirectory(prefix="phenaki-")
        self.directory = Path(self._folder.name)
        if paths.is_file(self._remote / lines):
            (self._remote / lines).copy(self.directory / lines)

    def send(self, now: bool = False) -> None:
        """Uploads the files that have grown, if the last time is long ago, or `now`."""
        if self._remote is None:
            return
        for file in sorted(self.directory.rglob("*")):
            if not file.is_file():
                continue
            name = file.relative_to(self.directory).as_posix()
            every = LINES_EVERY if name == self._lines else EVENTS_EVERY
            last, size = self._sent.get(name, (0.0, -1))
            due = now or time.monotonic() - last >= every
            if due and file.stat().st_size != size:
                size = file.stat().st_size  # before: the file may grow meanwhile
                paths.upload(file, self._remote / name)
                self._sent[name] = time.monotonic(), size

    def close(self) -> None:
        """Uploads the rest; a bucket that refuses it is a warning, since this is no result."""
        if self._remote is None:
            return
        try:
            self.send(now=True)
        except Exception as error:
            why = bucket_reason(error) or error
            logging.warning(
                "%s: the last lines of the logs were not written (%s)", self._remote, why
            )
        self._folder.cleanup()
