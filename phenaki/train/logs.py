"""Scalars and images of a run, as JSON lines and, where it is installed, for TensorBoard."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from phenaki.errors import UserError
from phenaki.io import artifacts, paths
from phenaki.io.paths import AnyPath, PathLike
from phenaki.train.log_files import LogFiles
from phenaki.train.trackers import Tracker

try:
    from tensorboardX import SummaryWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
except ImportError:  # optional: an accelerator machine may lack it
    SummaryWriter = None


FILE = "metrics.jsonl"


class Ratio(NamedTuple):
    """A metric of some of a step's samples: the sum over them and their number, perhaps 0."""

    total: Any
    count: Any


class UsedTokens(NamedTuple):
    """The metric of the fraction of a codebook that is predicted, of masked positions if fewer."""

    ever: Any  # [k] bool: whether each token is predicted
    masked: Any  # number of masked positions


def over_parts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a step from those of its micro-batches, stacked along the first axis.

    What is logged does not depend on their number: a `Ratio` is a sum, and tokens that several
    parts use count once.
    """

    def combine(value):
        if isinstance(value, Ratio):
            return Ratio(*(part.sum(0) for part in value))
        if isinstance(value, UsedTokens):
            used, masked = value.ever.any(0), value.masked.sum(0)
            return used.sum() / jnp.minimum(masked, used.size)
        return value.mean(0)

    return {name: combine(value) for name, value in metrics.items()}


def mean(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over steps of their metrics; a `Ratio` is averaged over samples, absent without any."""
    means = {}
    for name, value in steps[-1].items():
        if isinstance(value, Ratio):
            total, count = np.sum([step[name] for step in steps], axis=0)
            if count:
                means[name] = float(total / count)
        else:
            means[name] = float(np.mean([step[name] for step in steps]))
    return means


class Logs:
    """Writes metrics.jsonl and TensorBoard events of `workdir`, on the first process only.

    Those after `step`, of a run that was killed after its last checkpoint, are dropped.
    A line's "seconds" count from the start or the last resume; "seconds_waited" of them were spent
    waiting for batches. A `tracker` gets the same metrics.
    """

    def __init__(self, workdir: AnyPath, step: int = 0, tracker: Tracker | None = None):
        self._tracker = tracker
        self._files, self._lines, self._events = None, None, None
        if jax.process_index() == 0:
            self._files = LogFiles(workdir, FILE)
            self._path = self._files.directory / FILE
            self._lines = _open_after(self._path, step)
            if SummaryWriter:
                events = str(self._files.directory / "events")
                self._events = SummaryWriter(events, purge_step=step + 1)
                _outlast_full_disk(self._events)
        self._start = time.monotonic()
        self.waited = 0.0  # seconds

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time within the block as waiting for a batch."""
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start

    def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
        """Writes one line."""
        if self._lines is None or not values:
            return
        times = {"seconds": time.monotonic() - self._start, "seconds_waited": self.waited}
        times = {name: round(seconds, 2) for name, seconds in times.items()}
        try:
            self._lines.write(json.dumps({"step": step, **times, **values}) + "\n")
            self._lines.flush()
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be written ({error.strerror}). Free space or fix the "
                "permissions, and run the same command again."
            ) from error
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(step, values)
        if self._files is not None:
            self._files.send()

    def flush(self) -> None:
        """Sends all lines to the bucket of the run: a checkpoint must not be newer than they."""
        if self._files is not None:
            if self._events is not None:
                self._events.flush()
            self._files.send(now=True)

    def rewind(self, step: int) -> None:
        """Drops lines and events after `step`: the run continues from there."""
        if self._lines is not None:
            self._lines.close()
            self._lines = _open_after(self._path, step)
        if self._events is not None:
            # What a new writer with this `purge_step` writes. Its file could have the same name.
            start = SessionLog(status=SessionLog.START)
            self._events.file_writer.add_event(Event(step=step + 1, session_log=start))

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes uint8 images [h w 3] for TensorBoard."""
        if self._events is not None:
            for name, image in images.items():
                self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Closes both files."""
        # What could not be written is known by now: here it would hide that line.
        with contextlib.suppress(OSError):
            if self._lines is not None:
                self._lines.close()
        if self._events is not None:
            self._events.close()
        if self._files is not None:
            self._files.close()


class _Dropping:
    """The methods of a writer of events, which drop what cannot be written."""

    def __init__(self, writer: Any):
        self._writer = writer
        self._warned = False

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._writer, name)

        def attempt(*arguments):
            try:
                return method(*arguments)
            except OSError as error:
                if not self._warned:
                    self._warned = True
                    logging.warning("TensorBoard's events are not complete: %s", error.strerror)

        return attempt


def _outlast_full_disk(events: Any) -> None:
    """Without it an error ends the thread that writes, and training waits for it forever."""
    writer = events.file_writer.event_writer
    writer._ev_writer = writer._worker._record_writer = _Dropping(writer._ev_writer)


def read(workdir: PathLike) -> list[dict]:
    """A dictionary per step of metrics.jsonl: metrics and scores of a step are two lines."""
    steps: dict[int, dict] = {}
    for values in _lines(paths.path(workdir) / FILE).values():
        steps.setdefault(values["step"], {}).update(values)
    return [steps[step] for step in sorted(steps)]


def _lines(path: AnyPath) -> dict[str, dict]:
    """The lines of metrics.jsonl with their values, without one that a kill cut short."""
    found = {}
    content = path.read_bytes() if paths.is_file(path) else b""
    for raw in content.split(b"\n"):
        with contextlib.suppress(ValueError):  # torn: no JSON, or no UTF-8
            line = raw.decode()
            values = artifacts.parsed(line)
            if isinstance(values, dict) and isinstance(values.get("step"), int):
                found[line] = values
    return found


def _open_after(path: AnyPath, step: int) -> TextIO:
    """`path` open for appending, without the lines after `step`, and without torn ones."""
    if paths.is_file(path):
        path = path.resolve()  # a link stays one
        kept = [line for line, values in _lines(path).items() if values["step"] <= step]
        with artifacts.atomic(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept))
    return open(path, "a")
