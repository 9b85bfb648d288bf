"""The train state, and the one way it is updated."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """Everything a resumed run needs besides the data iterator. `extra` belongs to the step.

    Leaves are arrays, or the shapes or shardings of arrays.
    """

    step: Any
    params: Any
    opt_state: Any
    ema: Any
    extra: Any


def create(params, optimizer: optax.GradientTransformation, extra=()) -> TrainState:
    """A state at step 0; the average starts at the parameters."""
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), jax.tree.map(jnp.copy, params), extra)


def apply_gradients(state: TrainState, grads, optimizer, *, ema: float) -> TrainState:
    """One optimiser update; the average moves by 1 - `ema`, faster during the first steps."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # The start of training would otherwise stay in the average for 1 / (1 - ema) steps.
    decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.ema, params)
    return dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, ema=average
    )
