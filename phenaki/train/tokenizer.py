"""One training step of a tokenizer: equation 2, the codebook's usage, dead-code revival."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from phenaki.blocks import sharding
from phenaki.blocks.quantizer import nearest, normalize
from phenaki.losses import gan, masked_tokens
from phenaki.losses.tokenizer import Adversary, Evaluated
from phenaki.train.optim import value_and_grad
from phenaki.train.state import TrainState, apply_gradients


def pixels(part: Mapping) -> jax.Array:
    """The uint8 clips of a sub-batch as float32 in [0, 1]."""
    video = sharding.constrain(part["video"], {0: sharding.BATCH, 2: "sequence"})
    return video.astype(jnp.float32) / 255


def initial_extra(
    codebook: int,
    discriminator=None,
    adversary: Adversary | None = None,
    averaged: int | None = None,
) -> dict:
    """Code counts of the running window and of the last whole one; the discriminator's state.

    With `averaged`, the values of a code, also the averages that become the codebook.
    """
    extra: dict = {name: jnp.zeros((codebook,), jnp.int32) for name in ("running", "window")}
    if averaged:
        extra["sums"] = jnp.zeros((codebook, averaged))
    if adversary is not None:
        extra["discriminator"] = {
            "params": discriminator,
            "opt_state": adversary.optimizer.init(discriminator),
            "averages": gan.initial_averages(),
        }
    return extra


def make_step(
    model,
    optimizer,
    evaluate: Callable[..., Evaluated],
    *,
    ema: float,
    accumulate: int,
    usage_window: int,
    revive_until: int,
    decay: float = 0.0,
    adversary: Adversary | None = None,
):
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `evaluate` is of `objective.make_objective`, with the same `adversary`. Both players learn from
    one forward pass, each from its own loss only.

    Codes unused over a window of `usage_window` steps are re-drawn from that step's encoder outputs
    until step `revive_until` (0 = never, as in the paper; without it a small codebook collapses).
    The first such draw, at step 0, replaces every code: a start from data.

    With a `decay`, codes follow running averages of the encoder outputs that chose them instead of
    the gradient (VQ-VAE's other rule; the paper's is the gradient of equation 1).
    """

    def step(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        index = state.step
        player = state.extra.get("discriminator")
        params = {"generator": state.params}
        if player is not None:
            params["discriminator"] = player["params"]

        averages = player["averages"] if player is not None else None
        rows = {kind: len(part["video"]) for kind, part in batch.items()}

        def loss_fn(params, batch, key):
            # Images are one-frame clips of another shape; samples weigh alike whatever their kind.
            keys = dict(zip(sorted(batch), jax.random.split(key, len(batch)), strict=True))
            out = {
                kind: evaluate(params, frozen, pixels(part), keys[kind], index, averages)
                for kind, part in batch.items()
            }
            loss = sum(rows[kind] * out[kind].loss for kind in batch) / sum(rows.values())
            metrics = {kind: out[kind].metrics for kind in batch}
            inputs = jnp.concatenate([out[kind].inputs for kind in batch])
            return loss, (metrics, sum(out[kind].counts for kind in batch), inputs)

        _, aux, grads = value_and_grad(loss_fn, params, batch, key, accumulate)
        metrics, counts, inputs = aux
        metrics = jax.tree.map(jnp.mean, metrics)
        total = sum(rows[kind] * metrics[kind].pop("loss/total") for kind in rows)
        named = {
            "loss/total": total / sum(rows.values()),
            "grad_norm": optax.tree.norm(grads["generator"]),
        }
        for kind, values in metrics.items():
            prefix = "" if kind == "video" else f"{kind}/"
            for name, value in values.items():
                if name.startswith("mse/"):
                    name, value = name.replace("mse", "psnr"), masked_tokens.psnr(value)
                named[prefix + name] = value
        state = apply_gradients(state, grads["generator"], optimizer, ema=ema)
        if player is not None:
            named["gan/grad_norm"] = optax.tree.norm(grads["discriminator"])
            player = _train_discriminator(adversary, player, grads["discriminator"], metrics)
            state = dataclasses.replace(state, extra=state.extra | {"discriminator": player})
        inputs = inputs.reshape(-1, model.code_dim)
        if decay:
            state = average_codes(state, params["generator"]["quantizer"]["embedding"], inputs)
        state, usage = count_codes(state, index, counts.sum(0), inputs, key)
        return state, named | usage

    def average_codes(state, table, inputs):
        chosen = nearest(inputs, normalize(table))
        sums = decay * state.extra["sums"] + (1 - decay) * jnp.zeros_like(table).at[chosen].add(
            inputs
        )
        # Tokens are normalised when used: a sum is as good as a mean. Unused ones stay.
        table = jnp.where(jnp.any(sums, axis=-1, keepdims=True), sums, table)
        params = {**state.params, "quantizer": {"embedding": table}}
        return dataclasses.replace(state, params=params, extra=state.extra | {"sums": sums})

    def count_codes(state, index, counts, inputs, key):
        running = state.extra["running"] + counts
        ended = (index + 1) % usage_window == 0
        window = jnp.where(ended, running, state.extra["window"])
        dead = ((index == 0) | (ended & (running == 0))) & (index < revive_until)
        drawn = inputs[jax.random.randint(key, (model.codebook,), 0, len(inputs))]

        def revive(params):
            if "quantizer" not in params:  # it has no codebook to revive
                return params
            table = jnp.where(dead[:, None], drawn, params["quantizer"]["embedding"])
            return {**params, "quantizer": {"embedding": table}}

        usage = {
            "codebook/usage": (window > 0).mean(),
            "codebook/perplexity": masked_tokens.perplexity(window.astype(jnp.float32)),
        }
        extra = state.extra | {"running": jnp.where(ended, 0, running), "window": window}
        if decay:
            extra["sums"] = jnp.where(dead[:, None], drawn, extra["sums"])
        state = dataclasses.replace(
            state, params=revive(state.params), ema=revive(state.ema), extra=extra
        )
        return state, usage

    return step


def _train_discriminator(adversary, player, grads, metrics):
    updates, opt_state = adversary.optimizer.update(grads, player["opt_state"], player["params"])
    seen = metrics["video"] if "video" in metrics else metrics["image"]
    averages = gan.update_averages(player["averages"], seen, adversary.average_decay)
    return {
        "params": optax.apply_updates(player["params"], updates),
        "opt_state": opt_state,
        "averages": averages,
    }
