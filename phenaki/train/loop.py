"""The one training loop: sharded state, checkpoints, logs, samples."""

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from phenaki import cli
from phenaki.checkpoint import Run, is_run
from phenaki.data.batches import Batches
from phenaki.errors import UserError
from phenaki.train import parallel
from phenaki.train.logs import Logs, mean
from phenaki.train.watch import Watch

# A resumed run may change how it trains, never what it trains.
FIXED = ("video", "tokenizer", "model", "text", "critic", "fingerprint", "generator", "seed")


class Diverged(RuntimeError):
    """The loss is no longer a number."""


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

    Raises:
        UserError: `workdir` holds another run, or the batch does not divide over the devices.
        Diverged: a step's loss is not finite; names the step and the loss. Nothing is saved then.
    """
    workdir = Path(workdir)
    mesh = parallel.make_mesh(**config.mesh, devices=devices)
    for field in ("batch", "image_batch"):
        parallel.check_batch(
            f"config.data.{field}", config.data[field], mesh, config.optim.accumulate
        )
    _claim(config, workdir)
    key = jax.random.key(config.seed)
    layout = parallel.shardings(jax.eval_shape(init, key), mesh)
    state = jax.jit(init, out_shardings=layout)(key)
    frozen = jax.device_put(frozen, parallel.shardings(frozen, mesh))
    train_step = jax.jit(step, donate_argnums=0, out_shardings=(layout, None))

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(contextlib.closing(Run(workdir, keep=config.train.keep)))
        logs = stack.enter_context(contextlib.closing(Logs(workdir)))
        stack.enter_context(contextlib.closing(batches))
        if checkpoints.latest is not None:
            state, data = checkpoints.restore(state)
            batches.restore(data)
            logging.info("resumed %s at step %d", workdir, checkpoints.latest)
        start, end = int(state.step), config.train.steps
        progress = stack.enter_context(cli.Progress(end, "training", done=start))
        stack.enter_context(jax.set_mesh(mesh))
        watch = Watch(config)
        pending = []  # metrics stay on the devices until due: reading them stops the pipeline
        for number in range(start + 1, end + 1):
            batch = parallel.global_batch(next(batches), mesh)
            state, metrics = train_step(state, frozen, batch, key)
            pending.append(metrics)
            if any(_due(config, what, number) for what in ("log", "save", "sample")):
                watch.look(number, _flush(logs, pending, number))
                pending = []
            if _due(config, "save", number):
                checkpoints.save(number, state, batches.state())
            if _due(config, "sample", number) and sample is not None:
                images, scores = sample(state, frozen, number, workdir / "samples")
                logs.images(number, images)
                logs.scalars(number, scores)
            progress.update(1)
    return state


def _due(config, what, number):
    return number == config.train.steps or number % config.train[f"{what}_every"] == 0


def _claim(config, workdir):
    """Makes `workdir` this run's, or checks that it already is."""
    if is_run(workdir):
        before = json.loads((workdir / "config.json").read_text())
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
        (workdir / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")


def _flush(logs, pending, step):
    """Logs and returns the mean over the steps since the last time; stops at the first bad loss."""
    pending = jax.device_get(pending)
    for before, metrics in enumerate(pending):
        loss = float(metrics["loss/total"])
        if not math.isfinite(loss):
            bad = step - len(pending) + before + 1
            raise Diverged(f"loss/total is {loss} at step {bad}; nothing was saved since.")
    means = mean(pending)
    logs.scalars(step, means)
    return means
