"""The codebook while it trains: usage, revival of unused codes, and the EMA codebook.

Not in the paper but for usage and perplexity: revival and the EMA update are off in its configs.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from phenaki.blocks.quantizer import nearest, normalize
from phenaki.losses.tokenizer import perplexity
from phenaki.train.state import TrainState


def initial_extra(codes: int, ema_dim: int | None = None) -> dict[str, Array]:
    """Counts of `codes` codes over the current usage window, and over the last complete one.

    With `ema_dim`, the dimension of a code, also the sums of which the EMA codebook consists.
    """
    extra = {name: jnp.zeros((codes,), jnp.int32) for name in ("running", "window")}
    if ema_dim:
        extra["sums"] = jnp.zeros((codes, ema_dim))
    return extra


def ema_update(
    state: TrainState, used: Float[Array, "k e"], inputs: Float[Array, "n e"], decay: float
) -> TrainState:
    """Moves each code towards the mean of the encoder outputs `inputs` that chose it in `used`.

    It is VQ-VAE's other update rule, in place of the gradient of equation 1.
    """
    chosen = nearest(inputs, normalize(used))
    total = jnp.zeros_like(used).at[chosen].add(inputs)
    sums = decay * state.extra["sums"] + (1 - decay) * total
    # Codes are normalised where they are used, so that a sum is as good as a mean. Codes that no
    # output ever chose keep their values.
    table = jnp.where(jnp.any(sums, axis=-1, keepdims=True), sums, used)
    params = {**state.params, "quantizer": {"embedding": table}}
    return dataclasses.replace(state, params=params, extra=state.extra | {"sums": sums})


def count_and_revive(
    state: TrainState,
    index: Int[Array, ""],
    counts: Int[Array, " k"],
    inputs: Float[Array, "n e"],
    key: Key[Array, ""],
    *,
    usage_window: int,
    revive_until: int,
    from_data: bool = True,
) -> tuple[TrainState, dict[str, Array]]:
    """Adds the code `counts` of step `index`; replaces unused codes; returns metrics of usage.

    At the end of each window of `usage_window` steps before step `revive_until`, codes without a
    use are replaced by random encoder outputs of the step (without it a small codebook collapses).
    Step 0 replaces every code, a data-dependent initialisation, unless not `from_data`.
    """
    running = state.extra["running"] + counts
    ended = (index + 1) % usage_window == 0
    window = jnp.where(ended, running, state.extra["window"])
    first = (index == 0) & from_data
    dead = (first | (ended & (running == 0))) & (index < revive_until)
    sampled = inputs[jax.random.randint(key, (len(counts),), 0, len(inputs))]
    metrics = {
        "codebook/usage": (window > 0).mean(),
        "codebook/perplexity": perplexity(window.astype(jnp.float32)),
    }
    extra = state.extra | {"running": jnp.where(ended, 0, running), "window": window}
    if "sums" in extra:
        extra["sums"] = jnp.where(dead[:, None], sampled, extra["sums"])
    state = dataclasses.replace(
        state,
        params=_replace(state.params, dead, sampled),
        ema=_replace(state.ema, dead, sampled),
        extra=extra,
    )
    return state, metrics


def _replace(params: Any, dead: Bool[Array, " k"], sampled: Float[Array, "k e"]) -> Any:
    if "quantizer" not in params:  # FSQ and LFQ have no codebook to revive
        return params
    table = jnp.where(dead[:, None], sampled, params["quantizer"]["embedding"])
    return {**params, "quantizer": {"embedding": table}}
