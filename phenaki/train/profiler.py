"""A trace of some steps of a run, for xprof, and the speed of the steps since the last line.

Both see what a run does and change nothing of it.
"""

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import AnyPath
from phenaki.train.trackers import Tracker

FOLDER = "profile"  # in a workdir


class StepWork(NamedTuple):
    """What one step does, on all devices together."""

    tokens: int  # that it trains on
    flops: float | None  # of matrix products and convolutions, without recomputation
    peak: float | None  # FLOPs per second that the devices could do; None if unknown


@dataclasses.dataclass(frozen=True)
class Observe:
    """What to observe of a run.

    Attributes:
        profile: steps [first, last) to trace, counted from 0; None: no trace.
        work: the plain config of a run -> `StepWork`; None: no speed is logged.
        track: a name of `trackers.NAMES`; "": metrics go to the run's files only.
    """

    profile: tuple[int, int] | None = None
    work: Callable[[Mapping[str, Any]], StepWork] | None = None
    track: str = ""


NOTHING = Observe()


def parse_steps(text: str) -> tuple[int, int] | None:
    """(first, last) of "FIRST:END", the steps first .. last - 1; None of an empty text.

    Raises:
        UserError: it is something else.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = map(int, match.groups()) if match else (100, 110)
    if match is None or first >= last:
        raise UserError(
            f"--profile={text}: must be FIRST:END, two steps of the run with FIRST below END; "
            f"nearest is {first}:{max(last, first + 1)}."
        )
    return first, last


class Observer:
    """Observes one run, whose plain config is `fields`; in a job its first process alone.

    The trace goes to `workdir`/profile; one that cannot be written is a warning. The speed leaves
    out the first step, which compiles, and checkpoints and samples.
    """

    def __init__(
        self,
        observe: Observe,
        fields: Mapping[str, Any],
        workdir: AnyPath,
        clock: Callable[[], float] = time.monotonic,
    ):
        first = jax.process_index() == 0
        self._steps = observe.profile if first else None
        self._work = observe.work(fields) if observe.work and first else None
        self._target, self._clock = workdir / FOLDER, clock
        self._trace, self._tracing = contextlib.ExitStack(), False
        self._compiled = False
        self._since: tuple[float, float, int] | None = None  # time, seconds waited, step
        self.note = ""  # for the progress line
        self.tracker: Tracker | None = None
        if observe.track and first:
            self.tracker = Tracker(observe.track, workdir, fields)

    @contextlib.contextmanager
    def step(self, number: int, state: Any, waited: float) -> Iterator[None]:
        """Around step `number`, counted from 0, from `state`; `waited` seconds until now."""
        self._start_or_stop(number, state)
        if self._since is None and self._compiled:
            jax.block_until_ready(state)  # the steps before do not count
            self._since = self._clock(), waited, number
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        self._compiled = True

    def _start_or_stop(self, number: int, state: Any) -> None:
        if self._steps is None:
            return
        first, last = self._steps
        if number >= last:
            if not self._tracing:
                logging.warning(
                    "--profile=%d:%d: the run is past these steps, at %d; none is traced.",
                    first, last, number,
                )  # fmt: skip
            self._steps = None
            jax.block_until_ready(state)
            self._end_trace()
        elif number >= first and not self._tracing:
            jax.block_until_ready(state)  # the steps before are no part of it
            self._tracing = True
            with _warn_of_failure(self._target):
                self._trace.enter_context(_trace(self._target))

    def measure(self, number: int, waited: float) -> dict[str, float]:
        """The speed since the last call, in metrics by name; `number` steps are done.

        tokens_per_second; mfu, of the bfloat16 peak, where both are known; device_memory_gib, the
        most that a device of this host has held. {} where no step was counted.
        """
        since, self._since = self._since, None
        if self._work is None or since is None or number <= since[2]:
            return {}
        seconds = max(self._clock() - since[0], 1e-9)
        rate = (number - since[2]) / seconds
        values = {"tokens_per_second": rate * self._work.tokens}
        if self._work.flops and self._work.peak:
            values["mfu"] = rate * self._work.flops / self._work.peak
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        if peaks := [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]:
            values["device_memory_gib"] = max(peaks) / 2**30
        self.note = _describe(values, (waited - since[1]) / seconds)
        return values

    def close(self) -> None:
        """Ends the trace, if one has begun, and the tracker's run.

        A warning where the run ends before the steps of the trace.
        """
        self._end_trace()
        if self.tracker is not None:
            self.tracker.close()

    def _end_trace(self) -> None:
        if self._steps is not None and not self._tracing:
            logging.warning(
                "--profile=%d:%d: the run has ended without these steps; none is traced.",
                *self._steps,
            )
        self._steps = None
        with _warn_of_failure(self._target):
            self._trace.close()


@contextlib.contextmanager
def _trace(target: AnyPath) -> Iterator[None]:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # a hundred times the size, and none of it is of the devices
    with contextlib.ExitStack() as stack:
        folder = target
        if not isinstance(target, Path):  # the profiler writes to folders of the machine only
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phenaki-")))
        jax.profiler.start_trace(folder, profiler_options=options)
        yield
        jax.profiler.stop_trace()
        if folder is not target:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    paths.upload(file, target / file.relative_to(folder).as_posix())


@contextlib.contextmanager
def _warn_of_failure(target: AnyPath) -> Iterator[None]:
    """A profile is no reason to lose a run."""
    try:
        yield
    except Exception as error:
        logging.warning("%s: no profile was written (%s)", target, error)


def _describe(speed: Mapping[str, float], waited: float) -> str:
    parts = [f"{speed['tokens_per_second']:,.0f} tokens/s", f"{waited:.0%} waiting for batches"]
    if "mfu" in speed:
        parts.append(f"MFU {speed['mfu']:.1%}")
    if "device_memory_gib" in speed:
        parts.append(f"{speed['device_memory_gib']:.1f} GiB")
    return ", ".join(parts)
