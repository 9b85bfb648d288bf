"""Updates that would do harm are not made, and a run that makes no other goes back or stops."""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

WATCHED = ("loss/total", "grad_norm", "gan/grad_norm")
STEADY = WATCHED[:2]  # the other is 0 until the discriminator starts: its first value is no spike
SKIPPED = "skipped"  # 1 where an update was not made
RECENT = 200  # good steps that a spike is measured by; before there are as many, nothing is one


class Diverged(RuntimeError):
    """Training cannot go on; says since when, in which terms, and what to change."""


def skip_bad_updates(step: Callable) -> Callable:
    """`step` as (state, frozen, batch, key, limits) -> (state, metrics), which keeps the old state
    where a watched metric is no number or above its limit; the step still counts."""

    def guarded(state, frozen, batch, key, limits):
        following, metrics = step(state, frozen, batch, key)
        watched = {name: metrics[name] for name in WATCHED if name in metrics}
        bad = jnp.any(
            jnp.stack([~(jnp.abs(value) <= limits[name]) for name, value in watched.items()])
        )
        kept = jax.tree.map(lambda old, new: jnp.where(bad, old, new), state, following)
        return dataclasses.replace(kept, step=following.step), metrics | {SKIPPED: bad}

    return guarded


class Guard:
    """What is too much, and whether to go on; its state goes into the checkpoint.

    Args:
        spike: a watched metric so many times its recent mean is not trained on; 0: only what is no
            number.
        patience: skipped steps in a row before the run goes back to its last checkpoint.
        tries: times that it goes back before it stops.
    """

    def __init__(self, spike: float | int, patience: int, tries: int):
        self._spike, self._patience, self._tries = spike, patience, tries
        self._recent: dict[str, deque] = {name: deque(maxlen=RECENT) for name in WATCHED}
        self._row = 0
        self.skipped = 0
        self.went_back = 0

    def limits(self) -> dict[str, np.ndarray]:
        """The largest healthy value of each watched metric."""
        limits = {}
        for name, values in self._recent.items():
            enough = self._spike and name in STEADY and len(values) == RECENT
            top = self._spike * np.mean(values) if enough else np.finfo(np.float32).max
            limits[name] = np.asarray(top, np.float32)
        return limits

    def look(self, metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The steps whose update was made, of `metrics` in order."""
        made = []
        for one in metrics:
            if one[SKIPPED]:
                self.skipped += 1
                self._row += 1
            else:
                self._row = 0
                made.append(one)
                for name in WATCHED:
                    if name in one:
                        self._recent[name].append(abs(float(one[name])))
        return made

    @property
    def steady(self) -> bool:
        """Whether the last update was made: where it was not, the state itself may be wrong."""
        return self._row == 0

    @property
    def lost(self) -> bool:
        """Whether as many steps in a row as patience allows were skipped."""
        return self._row >= self._patience

    def go_back(self, step: int, to: int | None, last: Mapping[str, Any]) -> None:
        """Notes that the run goes back from `step` to checkpoint `to`.

        Raises:
            Diverged: there is none, or it did so too often.
        """
        why = diagnosis(last, self.limits())
        if to is None or self.went_back >= self._tries:
            where = (
                "no checkpoint to go back to" if to is None else f"went back {self._tries} times"
            )
            raise Diverged(
                f"{why} at step {step}, and {self._row} steps in a row were skipped; {where}. "
                "Lower config.optim.rate, lengthen config.optim.warmup, or look at the data of "
                "these steps; the checkpoints are untouched."
            )
        self.went_back += 1
        self._row = 0
        logging.warning(
            "%s at step %d, %d steps in a row were skipped; back to step %d, with the data after.",
            why, step, self._patience, to,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {
            "recent": {name: list(values) for name, values in self._recent.items()},
            "row": self._row,
            "skipped": self.skipped,
            "went_back": self.went_back,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on as the guard that gave `state`."""
        for name, values in state["recent"].items():
            self._recent[name] = deque(values, maxlen=RECENT)
        self._row, self.skipped = state["row"], state["skipped"]
        self.went_back = state["went_back"]


def diagnosis(metrics: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """Which metrics are no numbers, or else which are above their limits."""
    numbers = {name: value for name, value in metrics.items() if np.ndim(value) == 0}
    broken = [name for name, value in numbers.items() if not np.isfinite(float(value))]
    first = [name for name in WATCHED if name in broken]
    if broken:
        rest = [name for name in broken if name not in first]
        also = f" (also {', '.join(rest)})" if rest else ""
        head = (first or rest)[0]
        return f"{head} is {float(numbers[head])}{also if first else ''}"
    above = [n for n in WATCHED if n in numbers and float(numbers[n]) > float(limits[n])]
    return "; ".join(f"{n} is {float(numbers[n]):.4g}, above {float(limits[n]):.4g}" for n in above)
