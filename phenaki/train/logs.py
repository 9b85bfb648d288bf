"""Scalars and pictures of a run: JSON lines always, TensorBoard where it is installed."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

try:
    from tensorboardX import SummaryWriter
except ImportError:  # an accelerator machine may do without it
    SummaryWriter = None


class Ratio(NamedTuple):
    """A figure of some of a step's samples: their sum, and how many they were, perhaps none."""

    total: Any
    count: Any


def mean(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over steps of their metrics; of a `Ratio` over all its samples, absent if none."""
    means = {}
    for name, last in steps[-1].items():
        if isinstance(last, Ratio):
            total, count = np.sum([step[name] for step in steps], axis=0)
            if count:
                means[name] = float(total / count)
        else:
            means[name] = float(np.mean([step[name] for step in steps]))
    return means


class Logs:
    """Writes `workdir`/metrics.jsonl and events; of a line's "seconds", since the start or the last
    resume, "seconds_waited" were spent waiting for batches."""

    def __init__(self, workdir: Path):
        main = jax.process_index() == 0
        self._lines = open(workdir / "metrics.jsonl", "a") if main else None
        self._events = SummaryWriter(str(workdir / "events")) if main and SummaryWriter else None
        self._start = time.monotonic()
        self._waited = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The time within is waiting for a batch."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
        """One line."""
        if self._lines is None or not values:
            return
        times = {"seconds": time.monotonic() - self._start, "seconds_waited": self._waited}
        times = {name: round(seconds, 2) for name, seconds in times.items()}
        self._lines.write(json.dumps({"step": step, **times, **values}) + "\n")
        self._lines.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """uint8 [h w 3] pictures for TensorBoard."""
        if self._events is not None:
            for name, image in images.items():
                self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Closes both files."""
        if self._lines is not None:
            self._lines.close()
        if self._events is not None:
            self._events.close()


def read(workdir: str | Path) -> list[dict]:
    """One object per step of metrics.jsonl; where a resumed run repeats a step, the last counts."""
    path = Path(workdir) / "metrics.jsonl"
    steps: dict[int, dict] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        values = json.loads(line)
        steps.setdefault(values["step"], {}).update(values)
    return [steps[step] for step in sorted(steps)]
