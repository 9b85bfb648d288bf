"""The train state and its update."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """Everything on the devices that a resumed run needs.

    Leaves are arrays, or the shapes or shardings of arrays.
    """

    step: Any  # int32 scalar: updates made or skipped
    params: Any
    opt_state: Any
    ema: Any  # averaged parameters: what is sampled, scored and exported
    extra: Any  # whatever else the stage's step updates


def create(params, optimizer: optax.GradientTransformation, extra=()) -> TrainState:
    """A state at step 0; the averaged parameters start at `params`."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), jax.tree.map(jnp.copy, params), extra)


@jax.named_scope("optimizer")
def apply_gradients(state: TrainState, grads, optimizer, *, ema: float) -> TrainState:
    """One optimiser update; the averaged parameters move by 1 - `ema`, faster at the start."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # Without the ramp the initial parameters would stay in the average for 1 / (1 - ema) steps.
    decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.ema, params)
    return dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, ema=average
    )
