"""One training step of a tokenizer: equation 2's terms, the codebook's usage, dead-code revival."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from phenaki import losses
from phenaki.train.optim import value_and_grad
from phenaki.train.state import TrainState, apply_gradients


def pixels(part: Mapping) -> jax.Array:
    """The uint8 clips of a sub-batch as float32 in [0, 1]."""
    return part["video"].astype(jnp.float32) / 255


def initial_extra(codebook: int) -> dict:
    """Code counts of the running window and of the last whole one."""
    return {name: jnp.zeros((codebook,), jnp.int32) for name in ("running", "window")}


def make_step(
    model,
    optimizer,
    *,
    weights: Mapping[str, float],
    beta: float,
    ema: float,
    accumulate: int,
    usage_window: int,
    revive_until: int,
):
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `weights` are those of equation 2 by term (l2, vq); `beta` weighs the commitment (equation 1).
    Codes unused over a window of `usage_window` steps are re-drawn from that step's encoder outputs
    until step `revive_until` (0 = never, as in the paper; without it a small codebook collapses).
    The first such draw, at step 0, replaces every code: a start from data.
    """

    def terms(params, part):
        video = pixels(part)
        out = model.apply({"params": params}, video)
        error = jnp.square(out.video - video)
        quantized = out.quantized
        values = {
            "l2": error.mean(),
            "vq": quantized.codebook_loss + beta * quantized.commitment_loss,
        }
        metrics = {f"loss/{name}": value for name, value in values.items()}
        metrics["mse/first"] = error[:, :1].mean()
        if video.shape[1] > 1:
            metrics["mse/rest"] = error[:, 1:].mean()
        counts = jnp.bincount(quantized.codes.reshape(-1), length=model.codebook)
        inputs = quantized.inputs.reshape(-1, model.code_dim)
        return sum(weights[name] * values[name] for name in weights), metrics, counts, inputs

    def loss_fn(params, batch, key):
        del key  # nothing here is random
        # Images are one-frame clips of another shape; samples weigh alike whatever their kind.
        rows = {kind: len(part["video"]) for kind, part in batch.items()}
        out = {kind: terms(params, part) for kind, part in batch.items()}
        loss = sum(rows[kind] * out[kind][0] for kind in batch) / sum(rows.values())
        metrics = {kind: out[kind][1] for kind in batch}
        counts = sum(out[kind][2] for kind in batch)
        return loss, (metrics, counts, jnp.concatenate([out[kind][3] for kind in batch]))

    def step(state: TrainState, frozen, batch, key):
        del frozen
        key = jax.random.fold_in(key, state.step)
        loss, aux, grads = value_and_grad(loss_fn, state.params, batch, key, accumulate)
        metrics, counts, inputs = aux
        metrics = jax.tree.map(jnp.mean, metrics)
        named = {"loss/total": loss, "grad_norm": optax.tree.norm(grads)}
        for kind, values in metrics.items():
            prefix = "" if kind == "video" else f"{kind}/"
            for name, value in values.items():
                if name.startswith("mse/"):
                    name, value = name.replace("mse", "psnr"), losses.psnr(value)
                named[prefix + name] = value
        index = state.step
        state = apply_gradients(state, grads, optimizer, ema=ema)
        inputs = inputs.reshape(-1, model.code_dim)
        state, usage = count_codes(state, index, counts.sum(0), inputs, key)
        return state, named | usage

    def count_codes(state, index, counts, inputs, key):
        running = state.extra["running"] + counts
        ended = (index + 1) % usage_window == 0
        window = jnp.where(ended, running, state.extra["window"])
        dead = ((index == 0) | (ended & (running == 0))) & (index < revive_until)
        drawn = inputs[jax.random.randint(key, (model.codebook,), 0, len(inputs))]

        def revive(params):
            table = jnp.where(dead[:, None], drawn, params["quantizer"]["embedding"])
            return {**params, "quantizer": {"embedding": table}}

        usage = {
            "codebook/usage": (window > 0).mean(),
            "codebook/perplexity": losses.perplexity(window.astype(jnp.float32)),
        }
        extra = {"running": jnp.where(ended, 0, running), "window": window}
        return state.replace(params=revive(state.params), ema=revive(state.ema), extra=extra), usage

    return step
