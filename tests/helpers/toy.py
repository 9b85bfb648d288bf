"""The smallest training run of the loop: it adds up its batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

from phenaki.data.batches import Batches
from phenaki.train import loop, profiler, state
from phenaki.train.stage import RunOptions, Stage

ONE = jax.devices()[:1]


def counting(taken):
    """Batches 1, 2, ... of their own number."""
    while True:
        taken += 1
        yield {"video": {"number": np.full((8, 2), taken, np.float32)}}


def run(
    workdir, bad=(), config=None, devices=ONE, guard=None, slow=0, observe=profiler.NOTHING, **train
):
    """Its final state: the sum of the batches, and half a one more per step.

    Args:
        bad: {number of a batch: the loss that it has}.
        slow: products of matrices in every step; another metric, in float16, waits for them.
    """
    guard = {"spike": 0} if guard is None else guard  # its loss climbs as the sum does
    config = config or tiny.whole_config(train=train, mesh=dict(data=1, fsdp=-1), guard=guard)
    losses = dict(bad)

    def init(key):
        return state.create({"kernel": jnp.zeros((8, 2))}, optax.sgd(1.0))

    def step(current, frozen, batch, key):
        number = batch["video"]["number"].mean(0)
        total = current.params["kernel"] + number + frozen["offset"]
        loss = total[0].sum()
        for batch_number, value in losses.items():
            loss = jnp.where(number[0] == batch_number, value, loss)
        following = current.replace(step=current.step + 1, params={"kernel": total})
        metrics = {"loss/total": loss, "loss/l2": loss}
        if slow:
            matrix = jnp.full((256, 256), number[0])
            last = jax.lax.fori_loop(0, slow, lambda _, x: x @ matrix / x.max(), matrix)
            metrics["last"] = last[0, 0].astype(jnp.float16)
        return following, metrics

    def open_batches(rows):
        mine = list(rows["video"].rows)

        def stream(examples):
            for batch in counting(examples["video"] // 8):
                yield {"video": {"number": batch["video"]["number"][mine]}}

        return Batches(stream, {"video": 8})

    stage = Stage(None, init, step, frozen={"offset": np.full(2, 0.5, np.float32)})
    options = RunOptions.of(config.to_dict())
    return loop.run(stage, open_batches, options, workdir, devices=devices, observe=observe)
