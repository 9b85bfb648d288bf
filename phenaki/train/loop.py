"""The training loop of every stage: sharded state, checkpoints, logs, samples."""

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from phenaki import sharding
from phenaki.blocks.sharding import agreed
from phenaki.data.batches import FIELDS, Batches
from phenaki.data.host_rows import HostRows, describe, host_rows
from phenaki.errors import Preempted, UserError
from phenaki.io import outputs
from phenaki.io.checkpoint import has_checkpoint, load_config
from phenaki.io.checkpoint_manager import Checkpoints
from phenaki.io.paths import AnyPath, PathLike
from phenaki.progress import Progress
from phenaki.train.health import HealthMonitor
from phenaki.train.logs import Logs, Ratio, mean
from phenaki.train.profiler import NOTHING, Observe, Observer
from phenaki.train.skip_updates import SKIPPED, SkipUpdates, skip_bad_updates
from phenaki.train.stage import RunOptions, Stage
from phenaki.train.watchdog import PreemptionSignal, Watchdog
from phenaki.train.workdir import changes, claim, open_workdir, record

# Steps dispatched before the newest one is waited for. With one, the devices would wait for the
# host; many would hold as many batches in memory, and a preemption would wait for all of them.
AHEAD = 2
LOSSES = ("loss/total", "video/loss", "image/loss")  # the first of them is shown

Sampler = Callable[[Any, Any, int, AnyPath], tuple[Mapping, Mapping]]
OpenBatches = Callable[[Mapping[str, HostRows]], Batches]  # of this host's rows by kind


def run(
    stage: Stage,
    open_batches: OpenBatches,
    options: RunOptions,
    workdir: PathLike,
    *,
    sample: Sampler | None = None,
    devices: Sequence[jax.Device] | None = None,
    observe: Observe = NOTHING,
) -> Any:
    """Trains `stage` until `options.steps`, resuming from `workdir`; returns the final state.

    `sample(state, frozen, step, directory)` writes samples and returns (images for TensorBoard,
    scores), each by name. The mesh decides which rows of each batch this host loads, and hosts
    that share samples load the same ones. `devices` are all by default.

    An update with a non-finite or spiking loss or gradient is skipped; after too many in a row the
    run rolls back to its last checkpoint and continues with the data that follow (`SkipUpdates`).

    Raises:
        UserError: `workdir` contains another run or something else, another process trains there,
            the batch does not divide over the devices, or a checkpoint cannot be written.
        Preempted: SIGTERM or SIGHUP arrived; the checkpoint is saved.
        Diverged: rolling back did not help, or there was no checkpoint to roll back to.
    """
    mesh = mesh_of(options, devices)
    rows = host_rows_of(mesh, options.batch_sizes)
    with contextlib.ExitStack() as stack:
        # First: a refusal must leave no thread behind.
        batches = stack.enter_context(contextlib.closing(open_batches(rows)))
        held = outputs.claimed("workdir", open_workdir(workdir), "run")
        output = stack.enter_context(held)
        if options.from_step and not has_checkpoint(output.directory):
            raise UserError(
                f"config.train.from_step={options.from_step}: must be the step of a checkpoint in "
                f"{output.directory} (none); nearest is 0."
            )
        claim(output.directory, options.stored)
        _warn_of_steps_beyond(options)
        observer = Observer(observe, options.stored, output.directory)
        stack.enter_context(contextlib.closing(observer))
        return _run(stack, stage, batches, options, output, sample, mesh, rows, observer)


def mesh_of(options: RunOptions, devices: Any = None) -> Mesh:
    """The mesh of a run, over whose devices its batches divide.

    Raises:
        UserError: they do not, or there are not so many devices.
    """
    mesh = sharding.make_mesh(**options.mesh, devices=devices)
    for field, size in options.batch_sizes.items():
        sharding.check_batch(f"config.data.{field}", size, mesh, options.accumulate)
    return mesh


def _run(stack, stage, batches, options, output, sample, mesh, rows, observer):
    """`run` on `mesh`, once all that the config says has been checked."""
    directory = output.directory
    key = jax.random.key(options.seed)
    state_sharding = sharding.shardings(jax.eval_shape(stage.init, key), mesh)
    init = functools.partial(jax.jit(stage.init, out_shardings=state_sharding), key)
    frozen = jax.device_put(stage.frozen, sharding.shardings(stage.frozen, mesh))
    compiled = jax.jit(
        skip_bad_updates(stage.step), donate_argnums=0, out_shardings=(state_sharding, None)
    )

    def step(state, batch, limits):
        return compiled(state, frozen, sharding.global_batch(batch, mesh, rows), key, limits)

    def write_samples(state, number):
        return sample(state, frozen, number, directory / "samples") if sample else ({}, {})

    training = _Training(stack, output, batches, options, init, observer)
    before = load_config(directory).to_dict()
    state = training.resume(before["data"])
    if int(state.step) >= options.steps:
        logging.warning(
            "%s: has %d steps; raise config.train.steps above that to train longer.",
            directory, int(state.step),
        )  # fmt: skip
        return state
    for line in changes(before, options.stored):
        logging.warning("from step %d on: %s", int(state.step), line)
    # Only now: a config that the checkpoint refused must not replace the run's own.
    record(directory, options.stored)
    stack.enter_context(jax.set_mesh(mesh))
    return training.loop(state, step, write_samples)


def _warn_of_steps_beyond(options: RunOptions) -> None:
    if options.decay is not None and options.steps > options.decay:
        logging.warning(
            "config.train.steps=%d is above config.optim.decay=%d, where the learning rate reaches "
            "0: the steps after it train nothing. Set config.optim.decay=%d.",
            options.steps, options.decay, options.steps,
        )  # fmt: skip


def host_rows_of(mesh: Mesh, sizes: Mapping[str, int]) -> dict[str, HostRows]:
    """What this host loads of each batch, by kind; `sizes` are by field of config.data.

    A job of several hosts logs it.
    """
    totals = {kind: sizes[field] for kind, field in FIELDS.items() if sizes[field]}
    grid, process = sharding.process_grid(mesh), jax.process_index()
    if jax.process_count() > 1:
        sys.stderr.write(describe(totals, grid, process) + "\n")
    return {kind: host_rows(total, grid, process) for kind, total in totals.items()}


class _Training:
    """The open files of a run, which `stack` closes, and its metrics that are not logged yet."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        output: outputs.Claim,
        batches: Batches,
        options: RunOptions,
        init: Callable[[], Any],
        observer: Observer,
    ):
        self.output, self.directory = output, output.directory
        self.options, self.init = options, init
        self.observer = observer
        checkpoints = Checkpoints(self.directory, keep=options.keep)
        self.checkpoints = stack.enter_context(contextlib.closing(checkpoints))
        self.stack, self.batches = stack, batches
        self.skips = SkipUpdates(
            options.spike, options.patience, options.max_rollbacks, options.objective, options.joins
        )
        self.health = HealthMonitor(options.health)
        self.note = ""  # ends the line of progress
        # They stay on the devices until a log is due: reading them would wait for the devices.
        self.pending: list[Mapping[str, Any]] = []

    def resume(self, data_before: Mapping[str, Any]):
        """The state of the newest checkpoint, sharded as `init()`; `init()` where there is none.

        `data_before` is config.data as the run had it until now.
        """
        state = self.init()
        if self.options.from_step:
            self._go_back(self.options.from_step)
        if self.checkpoints.latest is not None:
            state, data = self.checkpoints.restore(state)
            self._restore_pending(data, int(state.step))
            self.batches.set_state(data, data_before)
            logging.info("resumed %s at step %d", self.directory, int(state.step))
        logs = Logs(self.directory, int(state.step), self.observer.tracker)
        self.logs = self.stack.enter_context(contextlib.closing(logs))
        return state

    def _go_back(self, step: int) -> None:
        """Sets the checkpoints after `step` aside, once: a restart must not do it again."""
        aside = self.directory / "abandoned" / f"after_{step}"
        if agreed(aside.is_dir()):
            logging.warning(
                "config.train.from_step=%d was done before, %s is there; resuming from the newest "
                "checkpoint.", step, aside,
            )  # fmt: skip
            return
        self.checkpoints.restore_older(step, aside)

    def loop(self, state, step: Callable, sample: Callable):
        """Trains to the last step: `step(state, batch, limits)`, `sample(state, step)`."""
        number, options = int(state.step), self.options
        with contextlib.ExitStack() as stack:
            shown = jax.process_index() == 0  # one line for the job
            progress = stack.enter_context(Progress(options.steps, "training", number, shown))
            preemption = stack.enter_context(contextlib.closing(PreemptionSignal()))
            watchdog = stack.enter_context(contextlib.closing(Watchdog(options.hang_minutes)))
            while number < options.steps:
                watchdog.kick()
                with self.logs.waiting():
                    batch = next(self.batches)
                with self.observer.step(number, state, self.logs.waited):
                    state, metrics = step(state, batch, self.skips.limits(number))
                number += 1
                self.pending.append(metrics)
                jax.block_until_ready(self.pending[-1 - AHEAD : -AHEAD])
                progress.update(note=self.note)
                preempted = preemption.given() and number < options.steps
                log_due = options.due(options.log_every, number)
                save_due = options.due(options.save_every, number)
                sample_due = options.due(options.sample_every, number)
                if log_due or save_due or sample_due:
                    last = self._log(number)
                    if self.skips.should_roll_back:
                        state = self._roll_back(state, number, last)
                        progress.update(int(state.step) - number)
                        number = int(state.step)
                        continue
                # A state whose last updates were all skipped may itself be the reason.
                if (save_due and (self.skips.healthy or number == options.steps)) or preempted:
                    data = self.batches.get_state() | self._pending_state()
                    self.output.check()
                    self.logs.flush()
                    self.checkpoints.save(number, state, data)
                if sample_due:
                    images, scores = sample(state, number)
                    self.logs.images(number, images)
                    self.logs.scalars(number, scores)
                if preempted:
                    self.checkpoints.wait()
                    raise Preempted(
                        f"{self.directory}: preempted at step {number}; checkpoint saved. The "
                        "same command resumes the run."
                    )
            progress.close(self.note)
        return state

    def _log(self, number: int) -> Mapping[str, Any]:
        """Logs the pending metrics as one line, means over applied updates; returns the last."""
        metrics, self.pending = jax.device_get(self.pending), []
        applied = self.skips.update(metrics, number)
        means = (mean(applied) if applied else {}) | {SKIPPED: self.skips.skipped}
        speed = self.observer.measure(number, self.logs.waited)
        self.logs.scalars(number, means | speed)
        self.health.update(number, means)
        loss = next((f"loss {means[name]:.3g}" for name in LOSSES if name in means), "")
        self.note = ", ".join(filter(None, (loss, self.observer.note)))
        return metrics[-1]

    def _roll_back(self, state, number: int, last: Mapping[str, Any]):
        """The state of the last checkpoint; the batches continue from here, past the bad ones."""
        self.checkpoints.wait()
        self.skips.roll_back(number, self.checkpoints.latest, last)
        state, _ = self.checkpoints.restore(state, self.init)
        self.logs.rewind(int(state.step))
        return state

    def _pending_state(self) -> dict[str, Any]:
        """What a checkpoint stores so that logs and limits continue as without an interruption."""
        # A `Ratio` becomes a list in JSON. The names are part of the checkpoint format.
        metrics = jax.tree.map(float, jax.device_get(self.pending))
        return {"guard": self.skips.state(), "pending": metrics}

    def _restore_pending(self, data: dict[str, Any], step: int) -> None:
        """Takes what `_pending_state` stored out of `data`."""
        if "guard" not in data:  # an old checkpoint, from before updates were skipped
            return
        self.skips.restore(data.pop("guard"), step)
        self.pending = [
            {
                name: Ratio(*value) if isinstance(value, list) else value
                for name, value in metrics.items()
            }
            for metrics in data.pop("pending")
        ]
