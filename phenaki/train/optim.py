"""Optimiser, schedules, and gradients accumulated over micro-batches."""

import jax
import jax.numpy as jnp
import optax


def schedule(*, peak: float, warmup: int, decay: int | None) -> optax.Schedule:
    """Linear 0 -> `peak` over `warmup` steps, then cosine to 0 at step `decay` (None: constant)."""
    if decay is None:
        return optax.join_schedules(
            [optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)], [warmup]
        )
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, decay)


def adamw(
    rate: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """AdamW with global-norm clipping; decays matrices only: no biases, norms or tables."""

    def decayed(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)

    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=decayed),
    )


def value_and_grad(loss_fn, params, batch, key, parts: int):
    """Loss and gradients of `loss_fn(params, batch, key) -> (loss, aux)` in `parts` micro-batches.

    Returns (loss, aux, gradients): means over the parts, and `aux` stacked along a new first axis.
    """
    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if parts == 1:
        (loss, aux), grads = gradient(params, batch, key)
        return loss, jax.tree.map(lambda x: x[None], aux), grads
    slices = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)

    def add(total, part):
        (loss, aux), grads = gradient(params, *part)
        return jax.tree.map(jnp.add, total, (loss, grads)), aux

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    (loss, grads), aux = jax.lax.scan(add, zeros, (slices, jax.random.split(key, parts)))
    return loss / parts, aux, jax.tree.map(lambda g: g / parts, grads)
