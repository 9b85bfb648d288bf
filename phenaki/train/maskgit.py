"""One training step of MaskGIT over the codes of a frozen tokenizer (§2.2, equation 3)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from phenaki.losses import masked_tokens
from phenaki.sampling import schedules
from phenaki.train.logs import Ratio
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
    schedule: schedules.Schedule = schedules.COSINE,
    weigh: Callable = masked_tokens.weight_samples,
    smoothing: float = 0.0,
):
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `encode(frozen, part)` gives a sub-batch's codes [b t m n]; `embed(frozen, part)` its `Text`, or
    is None for the unconditional model. The share `drop_text` of samples trains without text. An
    image is a 256-code forward of its own (at 128 px). `weigh` is one of `losses.REDUCTIONS`: by
    default samples weigh alike whatever their kind. Masks and dropped texts are those of the whole
    step, so micro-batches change neither them nor the loss.
    """

    def terms(params, part, key):
        tokens, mask = part["tokens"], part["mask"]
        logits = model.apply(
            {"params": params},
            schedules.apply_mask(tokens, mask, model.mask_id),
            part.get("text"),
            deterministic=False,
            rngs={"dropout": jax.random.split(key, 3)[2]},
        )
        loss, accuracy = masked_tokens.masked_cross_entropy(logits, tokens, mask, smoothing)
        ever = jnp.zeros(model.codebook, bool).at[logits.argmax(-1)].max(mask)
        metrics: dict[str, Any] = {
            "loss": loss.mean(),
            "accuracy": accuracy.mean(),
            "entropy": masked_tokens.masked_entropy(jax.lax.stop_gradient(logits), mask).mean(),
            "predicted": ever.sum() / jnp.minimum(mask.sum(), model.codebook),
        }
        tenth = jax.nn.one_hot(schedules.decile(mask), 10)
        for name, values in (("loss", loss), ("accuracy", accuracy)):
            for index, (total, count) in enumerate(zip(values @ tenth, tenth.sum(0), strict=True)):
                metrics[f"{name}/masked_{10 * index}"] = Ratio(total, count)
        return (part["weight"] * loss).mean(), metrics

    def loss_fn(params, batch, key):
        rows = {kind: len(part["tokens"]) for kind, part in batch.items()}
        keys = _keys(batch, key)
        out = {kind: terms(params, batch[kind], keys[kind]) for kind in batch}
        loss = sum(rows[kind] * out[kind][0] for kind in batch) / sum(rows.values())
        return loss, {kind: out[kind][1] for kind in batch}

    def prepare(frozen, part, key):
        """A sub-batch as the loss sees it, and what was drawn for it."""
        keys = dict(zip(("mask", "drop_text"), jax.random.split(key, 3)[:2], strict=True))
        tokens = encode(frozen, part)
        tokens = tokens.reshape(len(tokens), -1)
        ready = {
            "tokens": tokens,
            "mask": schedules.sample_mask(keys["mask"], tokens.shape, schedule),
        }
        drawn = {}
        if embed is not None:
            text = embed(frozen, part)
            keep = schedules.keep_text(keys["drop_text"], len(tokens), drop_text)
            ready["text"] = text.dropped(keep)
            drawn["unconditional"] = 1 - ready["text"].mask.any(-1).mean()
            captioned = text.mask.any(-1)
            drawn["dropped"] = Ratio((captioned & ~keep).sum(), captioned.sum())
        return jax.lax.stop_gradient(ready), drawn

    def step(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        keys = _keys(batch, key)
        prepared = {kind: prepare(frozen, batch[kind], keys[kind]) for kind in batch}
        ready = {kind: part for kind, (part, _) in prepared.items()}
        weights = weigh({kind: part["mask"].sum(-1) for kind, part in ready.items()})
        ready = {kind: part | {"weight": weights[kind]} for kind, part in ready.items()}
        loss, metrics, grads = value_and_grad(loss_fn, state.params, ready, key, accumulate)
        named = {"loss/total": loss, "grad_norm": optax.tree.norm(grads)}
        for kind, values in jax.tree.map(jnp.mean, metrics).items():
            values |= prepared[kind][1]
            named |= {f"{kind}/{name}": value for name, value in values.items()}
        return apply_gradients(state, grads, optimizer, ema=ema), named

    return step


def _keys(batch, key):
    return dict(zip(sorted(batch), jax.random.split(key, len(batch)), strict=True))
