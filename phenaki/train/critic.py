"""One training step of a token critic beside a frozen generator (docs/paper.md#token-critic)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from phenaki.losses import masked_tokens
from phenaki.sampling import decode, schedules
from phenaki.train.logs import Ratio
from phenaki.train.optim import value_and_grad
from phenaki.train.state import TrainState, apply_gradients


def was_masked(mask, sampled, tokens):
    """The label of the critic's paper: also a code that was guessed right was sampled."""
    del sampled, tokens
    return mask


def differs(mask, sampled, tokens):
    """A code that was guessed right counts as the data's."""
    del mask
    return sampled != tokens


LABELS = {"masked": was_masked, "differs": differs}


def make_step(
    critic,
    generator,
    optimizer,
    *,
    encode: Callable,
    embed: Callable | None,
    grid: tuple[int, int, int],
    drop_text: float,
    prefix: float,
    ema: float,
    accumulate: int,
    label: Callable = was_masked,
    schedule: schedules.Schedule = schedules.COSINE,
):
    """Returns step(state, frozen, batch, key) -> (state, metrics).

    `frozen["maskgit"]` fills the masks of a sample in one step, at temperature 1 and with its text;
    the critic learns to tell these codes, by `label(mask, sampled, codes)`, from all others, with
    the share `drop_text` of texts withheld from it. In the share `prefix` of clips the codes of
    some first frames are given: never masked, seen, and not counted. `encode` and `embed` are those
    of `step_maskgit`; `grid` is the (t, m, n) of a clip.
    """

    def loss_fn(params, batch, key, trunk):
        params = critic.merge_params(params, trunk)
        keys = _keys(batch, key)
        out = {kind: terms(params, batch[kind], keys[kind]) for kind in batch}
        rows = {kind: len(part["tokens"]) for kind, part in batch.items()}
        loss = sum(rows[kind] * out[kind]["loss"] for kind in batch) / sum(rows.values())
        return loss, out

    def terms(params, part, key):
        logits = critic.apply(
            {"params": params},
            part["tokens"],
            part.get("text"),
            deterministic=False,
            rngs={"dropout": key},
        )
        fake, counted = part["fake"], ~part["known"]
        loss = masked_tokens.masked_mean(
            masked_tokens.binary_cross_entropy(logits, fake), counted
        ).mean()
        right = (logits > 0) == fake
        return {
            "loss": loss,
            "accuracy/fake": Ratio((right & fake).sum(), fake.sum()),
            "accuracy/real": Ratio((right & ~fake & counted).sum(), (~fake & counted).sum()),
            "fake": masked_tokens.masked_mean(fake, counted).mean(),
        }

    def prepare(frozen, part, key):
        names = ("mask", "prefix", "sample", "drop_text")
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        tokens = encode(frozen, part)
        tokens = tokens.reshape(len(tokens), -1)
        size = (tokens.shape[1] // (grid[1] * grid[2]), *grid[1:])
        known = schedules.sample_prefix(keys["prefix"], len(tokens), size, prefix)
        mask = schedules.sample_mask(keys["mask"], tokens.shape, schedule, known)
        text = None if embed is None else embed(frozen, part)
        hidden = schedules.apply_mask(tokens, mask, generator.mask_id)
        logits = generator.apply({"params": frozen["maskgit"]}, hidden, text)
        drawn = decode.draw(jax.random.split(keys["sample"], len(tokens)), logits)
        sampled = jnp.where(mask, drawn, tokens)
        ready = {"tokens": sampled, "known": known, "fake": label(mask, sampled, tokens)}
        if critic.reads_text and text is not None:
            keep = schedules.keep_text(keys["drop_text"], len(tokens), drop_text)
            ready["text"] = text.dropped(keep)
        return jax.lax.stop_gradient(ready)

    def step(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        keys = _keys(batch, key)
        ready = {kind: prepare(frozen, batch[kind], keys[kind]) for kind in batch}
        of_params = functools.partial(loss_fn, trunk=frozen["maskgit"])
        loss, metrics, grads = value_and_grad(of_params, state.params, ready, key, accumulate)
        named = {"loss/total": loss, "grad_norm": optax.tree.norm(grads)}
        for kind, values in jax.tree.map(jnp.mean, metrics).items():
            named |= {f"{kind}/{name}": value for name, value in values.items()}
        return apply_gradients(state, grads, optimizer, ema=ema), named

    return step


def _keys(batch, key):
    return dict(zip(sorted(batch), jax.random.split(key, len(batch)), strict=True))
