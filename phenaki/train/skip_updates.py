"""Skips non-finite or spiking updates; rolls back to the last checkpoint after many in a row.

A loss that climbs too slowly for a spike is compared with its own lowest mean: a line warns of it,
then its updates count as spikes. Both are measured against the same objective. Where it changes,
because the discriminator joins at `config.gan.start` or a resumed run has other loss weights, the
means start anew.
"""

import dataclasses
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict

WATCHED = ("loss/total", "grad_norm", "gan/grad_norm")
# Spikes are measured in these only: gan/grad_norm is 0 until the discriminator starts to train, so
# its first value would count as a spike.
SPIKING = WATCHED[:2]
SKIPPED = "skipped"  # metric: 1 where an update was skipped
RECENT = 200  # applied updates that a spike is compared with; before there are as many, none is one
LOSS = "loss/total"
BLOCK = 20  # updates over which the lowest mean of the loss is taken
CLIMB = 4.0  # times that mean a loss is warned of


ADVICE = "lower config.optim.rate, lengthen config.optim.warmup, or look at the data of these steps"
ADVICE_AFTER_CHANGE = "lower the weight of what was added (config.loss)"


class Diverged(RuntimeError):
    """Training cannot continue; the message has the step, the metrics, and what to change."""


def skip_bad_updates(step: Callable) -> Callable:
    """`step` as (state, frozen, batch, key, limits) -> (state, metrics) that skips bad updates.

    Where a watched metric is not finite or exceeds its limit, the state stays as it was except for
    its step number.
    """

    def guarded(state, frozen, batch, key, limits):
        following, metrics = step(state, frozen, batch, key)
        watched = {name: metrics[name] for name in WATCHED if name in metrics}
        # A NaN compares as False, so `not <=` covers it; infinity exceeds the largest limit.
        bad = jnp.any(
            jnp.stack([~(jnp.abs(value) <= limits[name]) for name, value in watched.items()])
        )
        kept = jax.tree.map(lambda old, new: jnp.where(bad, old, new), state, following)
        return dataclasses.replace(kept, step=following.step), metrics | {SKIPPED: bad}

    return guarded


class SkipUpdates:
    """Counts skipped updates and keeps the limits of the watched metrics.

    Its `state()` goes into the checkpoint.

    Args:
        spike: skip an update where a metric exceeds this many times its recent mean, or the loss
            its lowest one; 0: only where it is not finite.
        patience: skipped updates in a row before a roll-back.
        max_rollbacks: roll-backs before training stops with `Diverged`.
        objective: the plain sections of the config that define the loss.
        joins: the step at which the discriminator joins; None: it never does.
    """

    def __init__(
        self,
        spike: float | int,
        patience: int,
        max_rollbacks: int,
        objective: Mapping[str, Any] | None = None,
        joins: int | None = None,
    ):
        self._spike, self._patience, self._max_rollbacks = spike, patience, max_rollbacks
        self._objective = json.loads(json.dumps(objective or {}))  # as a checkpoint stores it
        self._joins, self._joined = joins, False
        self._change, self._since = "", 0  # of the objective: what changed, the first step after it
        self._recent = _no_values()
        self._block: deque[float] = deque(maxlen=BLOCK)
        self._lowest, self._climbs = math.inf, False
        self.consecutive_skips = 0
        self.skipped = 0
        self.rollbacks = 0

    def _joined_at(self, step: int) -> bool:
        return self._joins is not None and step >= self._joins > 0

    def limits(self, step: int) -> dict[str, np.ndarray]:
        """The largest value of each watched metric whose update at `step` is applied, float32."""
        limits = {}
        like = self._joined_at(step) == self._joined
        for name, values in self._recent.items():
            enough = like and self._spike and name in SPIKING and len(values) == RECENT
            limit = self._spike * np.mean(values) if enough else np.finfo(np.float32).max
            if enough and name == LOSS and 0 < self._lowest < math.inf:
                limit = min(limit, self._spike * self._lowest)
            limits[name] = np.asarray(limit, np.float32)
        return limits

    def update(self, metrics: Sequence[Mapping[str, Any]], done: int) -> list[Mapping[str, Any]]:
        """Takes the metrics of the last of `done` steps in order; returns those of applied ones."""
        applied = []
        for number, step in enumerate(metrics, done - len(metrics)):
            self._enter(number)
            if step[SKIPPED]:
                self.skipped += 1
                self.consecutive_skips += 1
            else:
                self.consecutive_skips = 0
                applied.append(step)
                for name in WATCHED:
                    if name in step and number >= self._since:
                        self._recent[name].append(abs(float(step[name])))
                if LOSS in step and number >= self._since:
                    self._watch_climb(number, float(step[LOSS]))
        return applied

    def _watch_climb(self, step: int, loss: float) -> None:
        """Keeps the lowest mean of the loss; warns once where the loss has climbed far above it."""
        self._block.append(loss)
        if len(self._block) < BLOCK:
            return
        mean = float(np.mean(self._block))
        self._lowest = min(self._lowest, mean)
        climbs = 0 < CLIMB * self._lowest < mean  # a loss below 0 has no ratio
        if climbs and not self._climbs:
            logging.warning(
                "step %d: %s climbs: its mean over %d updates is %.4g and was %.4g. %s%s.",
                step, LOSS, BLOCK, mean, self._lowest, ADVICE[0].upper(), ADVICE[1:],
            )  # fmt: skip
        self._climbs = climbs

    def _enter(self, step: int) -> None:
        """Starts the recent means anew where `step` has another objective than the one before."""
        joined = self._joined_at(step)
        if joined != self._joined:
            self._joined, self._recent = joined, _no_values()
            self._forget_lowest()
            at = f"the discriminator joined at step {self._joins} (config.gan.start)"
            self._change = at if joined else ""

    def _forget_lowest(self) -> None:
        self._lowest, self._climbs = math.inf, False
        self._block.clear()

    @property
    def healthy(self) -> bool:
        """Whether the last update was applied. If not, the state itself may be the reason."""
        return self.consecutive_skips == 0

    @property
    def should_roll_back(self) -> bool:
        """Whether as many updates in a row as `patience` were skipped."""
        return self.consecutive_skips >= self._patience

    def roll_back(self, step: int, to: int | None, last: Mapping[str, Any]) -> None:
        """Counts a roll-back from `step` to checkpoint `to`; `last` are the last step's metrics.

        Raises:
            Diverged: there is no checkpoint, or there were `max_rollbacks` before.
        """
        reason = diagnosis(last, self.limits(step - 1))
        # The checks above start anew with the objective: until then it is the likeliest reason.
        recent = self._change and len(self._recent["loss/total"]) < RECENT
        advice = ADVICE
        if recent:
            reason, advice = f"{reason} after {self._change}", f"{ADVICE_AFTER_CHANGE}, {ADVICE}"
        if to is None or self.rollbacks >= self._max_rollbacks:
            where = (
                "no checkpoint to roll back to"
                if to is None
                else f"rolled back {self._max_rollbacks} times"
            )
            raise Diverged(
                f"{reason} at step {step}, and {self.consecutive_skips} updates in a row were "
                f"skipped; {where}. {advice[0].upper()}{advice[1:]}; the checkpoints are unchanged."
            )
        self.rollbacks += 1
        self.consecutive_skips = 0
        logging.warning(
            "%s at step %d, %d updates in a row were skipped; rolling back to step %d, and "
            "continuing with the data that follow.",
            reason, step, self._patience, to,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What `restore` needs, JSON-able."""
        # The names are part of the checkpoint format.
        return {
            "recent": {name: list(values) for name, values in self._recent.items()},
            "row": self.consecutive_skips,
            "skipped": self.skipped,
            "went_back": self.rollbacks,
            "objective": self._objective,
            "joined": self._joined,
            "change": self._change,
            "block": list(self._block),
            "lowest": self._lowest if self._lowest < math.inf else None,
        }

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Continues at `step` from a `state()`, with means of its own where the objective differs.

        A state of an earlier version has no objective: it counts as the same.
        """
        for name, values in state["recent"].items():
            self._recent[name] = deque(values, maxlen=RECENT)
        self.consecutive_skips, self.skipped = state["row"], state["skipped"]
        self.rollbacks = state["went_back"]
        self._joined = state.get("joined", self._joined_at(step - 1))
        self._change = state.get("change", "")
        lowest = state.get("lowest")
        self._lowest = math.inf if lowest is None else lowest
        self._block = deque(state.get("block", ()), maxlen=BLOCK)
        if changed := _changed(state.get("objective", self._objective), self._objective):
            self._change = f"{changed} changed at step {step}, on resuming"
            self._recent, self._joined, self._since = _no_values(), self._joined_at(step), step
            self._forget_lowest()
            logging.warning(
                "%s; spikes are measured from here on, once there are %d updates.",
                self._change, RECENT,
            )  # fmt: skip


def _no_values() -> dict[str, deque]:
    return {name: deque(maxlen=RECENT) for name in WATCHED}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The config paths of the values of both that differ, with these; "" where none does."""
    old, new = (flatten_dict(dict(fields), sep=".") for fields in (before, now))
    return ", ".join(
        f"config.{path} ({old[path]} to {new[path]})"
        for path in sorted(old.keys() & new.keys())
        if old[path] != new[path]
    )


def diagnosis(metrics: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """Which metrics are not finite, or else which exceed their limits."""
    scalars = {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0}
    broken = [name for name, value in scalars.items() if not np.isfinite(value)]
    # The watched metrics come first: they are why the update was skipped.
    first = [name for name in WATCHED if name in broken]
    if broken:
        rest = [name for name in broken if name not in first]
        also = f" (also {', '.join(rest)})" if rest else ""
        head = (first or rest)[0]
        return f"{head} is {scalars[head]}{also if first else ''}"
    above = [name for name in WATCHED if name in scalars and scalars[name] > float(limits[name])]
    return "; ".join(
        f"{name} is {scalars[name]:.4g}, above {float(limits[name]):.4g}" for name in above
    )
