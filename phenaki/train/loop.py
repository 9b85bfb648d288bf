"""The one training loop: sharded state, checkpoints, logs, samples."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from phenaki import sharding
from phenaki.data.batches import Batches
from phenaki.errors import Preempted, UserError
from phenaki.io.checkpoint import Checkpoints, is_run, load_config, save_config
from phenaki.progress import Progress
from phenaki.train.logs import Logs, Ratio, mean
from phenaki.train.skip_updates import SKIPPED, Guard, skip_bad_updates
from phenaki.train.watch import Watch
from phenaki.train.watchdog import PreemptionSignal, Watchdog

# A resumed run may change how it trains, never what it trains.
FIXED = ("video", "tokenizer", "model", "text", "critic", "fingerprint", "generator", "seed")

# Steps under way before the newest: one would let the devices wait for the host; many would hold as
# many batches in memory, and a notice to stop would be heeded only after all of them.
AHEAD = 2


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    init: Callable[[jax.Array], Any],
    step: Callable,
    frozen: Any,
    batches: Batches,
    sample: Callable[[Any, Any, int, Path], tuple[Mapping, Mapping]] | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Trains until `config.train.steps`, resuming from `workdir`; returns the final state.

    `init(key)` makes the state, `step(state, frozen, batch, key)` is pure, `sample(state, frozen,
    step, dir)` writes what people look at and returns images for TensorBoard and scores by name.
    `batches` are closed in the end. `devices` are all by default.

    A step whose loss or gradient is no number, or a spike, changes nothing; after too many in a row
    the run goes back to its last checkpoint, with the data that follow (see `Guard`).

    Raises:
        UserError: `workdir` holds another run, the batch does not divide over the devices, or a
            checkpoint cannot be written.
        Preempted: SIGTERM came; all is saved.
        Diverged: going back did not help, or there was nowhere to go back to.
    """
    mesh = sharding.make_mesh(**config.mesh, devices=devices)
    for field in ("batch", "image_batch"):
        sharding.check_batch(
            f"config.data.{field}", config.data[field], mesh, config.optim.accumulate
        )
    directory = _claim(config, workdir)
    key = jax.random.key(config.seed)
    layout = sharding.shardings(jax.eval_shape(init, key), mesh)
    state = jax.jit(init, out_shardings=layout)(key)
    frozen = jax.device_put(frozen, sharding.shardings(frozen, mesh))
    train_step = jax.jit(skip_bad_updates(step), donate_argnums=0, out_shardings=(layout, None))
    guard = Guard(config.guard.spike, config.guard.patience, config.guard.tries)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(directory, keep=config.train.keep))
        )
        logs = stack.enter_context(contextlib.closing(Logs(directory)))
        stack.enter_context(contextlib.closing(batches))
        pending = []  # metrics stay on the devices until due: reading them stops the pipeline
        if checkpoints.latest is not None:
            state, data = checkpoints.restore(state)
            pending = _go_on(data, guard)
            batches.set_state(data)
            logging.info("resumed %s at step %d", directory, int(state.step))
        number, end = int(state.step), config.train.steps
        progress = stack.enter_context(Progress(end, "training", done=number))
        stack.enter_context(jax.set_mesh(mesh))
        notice = stack.enter_context(contextlib.closing(PreemptionSignal()))
        alarm = stack.enter_context(contextlib.closing(Watchdog(config.guard.hang_minutes)))
        watch = Watch(config)

        while number < end:
            alarm.kick()
            with logs.waiting():
                batch = next(batches)
            batch = sharding.global_batch(batch, mesh)
            state, metrics = train_step(state, frozen, batch, key, guard.limits())
            number += 1
            pending.append(metrics)
            jax.block_until_ready(pending[-1 - AHEAD : -AHEAD])
            progress.update(1)
            stop = notice.given() and number < end
            due = {what for what in ("log", "save", "sample") if _due(config, what, number)}
            if due:
                last = jax.device_get(pending)
                pending = []
                made = guard.look(last)
                means = (mean(made) if made else {}) | {SKIPPED: guard.skipped}
                logs.scalars(number, means)
                watch.look(number, means)
                if guard.lost:
                    checkpoints.wait()
                    guard.go_back(number, checkpoints.latest, last[-1])
                    state, _ = checkpoints.restore(state)
                    progress.update(int(state.step) - number)
                    number = int(state.step)
                    continue
            if ("save" in due and (guard.steady or number == end)) or stop:
                checkpoints.save(number, state, batches.get_state() | _stand(pending, guard))
            if "sample" in due and sample is not None:
                images, scores = sample(state, frozen, number, directory / "samples")
                logs.images(number, images)
                logs.scalars(number, scores)
            if stop:
                checkpoints.wait()
                raise Preempted(
                    f"{directory}: told to stop at step {number}; all is saved, and the same "
                    "command goes on."
                )
    return state


def _stand(pending, guard):
    """What else a checkpoint keeps, so that logs and limits go on as without a break."""
    plain = jax.tree.map(float, jax.device_get(pending))  # a Ratio becomes a list in JSON
    return {"guard": guard.state(), "pending": plain}


def _go_on(data, guard):
    """Takes what `_stand` gave out of `data`; returns the metrics that were not logged yet."""
    if "guard" not in data:  # written before there was one
        return []
    guard.restore(data.pop("guard"))
    return [
        {name: Ratio(*value) if isinstance(value, list) else value for name, value in one.items()}
        for one in data.pop("pending")
    ]


def _due(config, what, number):
    return number == config.train.steps or number % config.train[f"{what}_every"] == 0


def _claim(config, workdir) -> Path:
    """Makes `workdir` this run's, or checks that it already is."""
    if "://" in os.fspath(workdir):
        raise UserError(
            f"--workdir={workdir}: must be a folder; mount a bucket on every host, as by gcsfuse "
            "BUCKET /mnt/BUCKET, and give /mnt/BUCKET/RUN."
        )
    workdir = Path(workdir)
    if is_run(workdir):
        before = load_config(workdir).to_dict()
        now = json.loads(json.dumps(config.to_dict()))
        for name in FIXED:
            if before.get(name) != now.get(name):
                raise UserError(
                    f"{workdir}: holds a run with another config.{name} ({before.get(name)}); "
                    "give the same config, or a new --workdir."
                )
    elif workdir.is_dir() and any(workdir.iterdir()) and (workdir / "checkpoints").exists():
        raise UserError(f"{workdir}: has checkpoints but no config.json; give a new --workdir.")
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
        save_config(workdir, config)
    return workdir
