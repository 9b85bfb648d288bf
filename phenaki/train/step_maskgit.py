"""One training step of MaskGIT over the codes of a frozen tokenizer (§2.2, equation 3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from phenaki import losses, masking
from phenaki.train.optim import value_and_grad
from phenaki.train.state import TrainState, apply_gradients


def make_step(
    model,
    optimizer,
    *,
    encode: Callable,
    embed: Callable | None,
    drop_text: float,
    ema: float,
    accumulate: int,
):
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `encode(frozen, part)` gives a sub-batch's codes [b t m n]; `embed(frozen, part)` its `Text`, or
    is None for the unconditional model. The share `drop_text` of samples trains without text. An
    image is a 256-code forward of its own (at 128 px); samples weigh alike whatever their kind.
    """

    def terms(params, part, key):
        keys = dict(zip(("mask", "drop_text", "dropout"), jax.random.split(key, 3), strict=True))
        codes = part["codes"]
        mask = masking.sample_mask(keys["mask"], codes.shape)
        text = part.get("text")
        metrics = {}
        if text is not None:
            text = text.dropped(masking.keep_text(keys["drop_text"], len(codes), drop_text))
            metrics["unconditional"] = 1 - text.mask.any(-1).mean()
        logits = model.apply(
            {"params": params},
            masking.apply_mask(codes, mask, model.mask_id),
            text,
            deterministic=False,
            rngs={"dropout": keys["dropout"]},
        )
        loss, accuracy = losses.masked_cross_entropy(logits, codes, mask)
        ever = jnp.zeros(model.codebook, bool).at[logits.argmax(-1)].max(mask)
        metrics["predicted"] = ever.sum() / jnp.minimum(mask.sum(), model.codebook)
        return loss.mean(), metrics | {"loss": loss.mean(), "accuracy": accuracy.mean()}

    def loss_fn(params, batch, key):
        rows = {kind: len(part["codes"]) for kind, part in batch.items()}
        keys = dict(zip(sorted(batch), jax.random.split(key, len(batch)), strict=True))
        out = {kind: terms(params, batch[kind], keys[kind]) for kind in batch}
        loss = sum(rows[kind] * out[kind][0] for kind in batch) / sum(rows.values())
        return loss, {kind: out[kind][1] for kind in batch}

    def prepare(frozen, part):
        codes = part["codes"] if "codes" in part else encode(frozen, part)
        ready = {"codes": codes.reshape(len(codes), -1)}
        if embed is not None:
            ready["text"] = embed(frozen, part)
        return jax.lax.stop_gradient(ready)

    def step(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        ready = {kind: prepare(frozen, part) for kind, part in batch.items()}
        loss, metrics, grads = value_and_grad(loss_fn, state.params, ready, key, accumulate)
        named = {"loss/total": loss, "grad_norm": optax.tree.norm(grads)}
        for kind, values in jax.tree.map(jnp.mean, metrics).items():
            named |= {f"{kind}/{name}": value for name, value in values.items()}
        return apply_gradients(state, grads, optimizer, ema=ema), named

    return step
