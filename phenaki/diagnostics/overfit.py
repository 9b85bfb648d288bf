"""Can it learn one sample by heart? What cannot is broken, whatever the data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki.losses.tokenizer import psnr
from phenaki.pipeline import Phenaki
from phenaki.progress import Progress
from phenaki.train import maskgit, optim, state, tokenizer
from phenaki.types import Text

RATE, WARMUP = 1e-3, 10
EVERY = 10  # steps between two looks
ROWS = 8  # of the one pair, each with a mask of its own


class Overfit(NamedTuple):
    """What was reached, and in how many steps."""

    value: float
    steps: int


def clip(config: ConfigDict, video: np.ndarray, *, bar: float, adversary: bool, steps: int):
    """Trains a fresh tokenizer of `config` on `video` uint8 [1 f h w 3]; `value` is its PSNR in dB.

    With the L2 and codebook terms only, or the adversarial one besides, at its weight (0.1 if that
    is 0). Stops once the PSNR is above `bar`.
    """
    config = ConfigDict(config.to_dict())
    config.loss.update(perceptual=0.0, video_perceptual=0.0)
    config.loss.adversarial = (config.loss.adversarial or 0.1) if adversary else 0.0
    config.optim.update(rate=RATE, warmup=WARMUP, decay=None, clip=1.0, accumulate=1)
    # The codes start from data (docs/paper.md#codebook-start).
    config.codebook.update(usage_window=EVERY, revive_until=steps // 2)
    config.start = ""
    stage = tokenizer.make_stage(config)
    current = jax.jit(stage.init)(jax.random.key(config.seed))
    step = jax.jit(stage.step, donate_argnums=0)
    pixels = jnp.asarray(video, jnp.float32) / 255

    @jax.jit
    def quality(params):
        fake: Any = stage.model.apply({"params": params}, pixels)
        return psnr(jnp.square(fake.video - pixels).mean())

    what = "one clip with the discriminator" if adversary else "one clip"
    with Progress(steps, what) as progress:
        for number in range(1, steps + 1):
            key = jax.random.key(config.seed)
            current, _ = step(current, stage.frozen, {"video": {"video": video}}, key)
            progress.update()
            if number % EVERY == 0 and (value := float(quality(current.params))) > bar:
                return Overfit(value, number)
    return Overfit(float(quality(current.params)), steps)


def pair(model: Phenaki, tokens: np.ndarray, caption: str | None, *, bar: float, steps: int):
    """Trains a fresh MaskGIT on `codes` [1 s] and their caption until its loss is below `bar`.

    Returns the `Overfit` of the loss, and the share of the codes that sampling with the caption
    gives back.
    """
    config = ConfigDict(model.config.to_dict())
    config.model.update(dropout=0.0, attention_dropout=0.0)
    fresh = Phenaki(config, model.params)
    rate = optim.schedule(peak=RATE, warmup=WARMUP, decay=None)
    optimizer = optim.adamw(rate, b1=0.9, b2=0.99, weight_decay=0.0, clip=1.0)
    text = fresh.embed([caption]) if config.text else None
    rows = jnp.repeat(jnp.asarray(tokens), ROWS, axis=0)
    whole = None if text is None else jax.tree.map(lambda x: jnp.repeat(x, ROWS, axis=0), text)
    step = maskgit.MaskGITStep(
        fresh.network,
        optimizer,
        encode=lambda frozen, part: part["tokens"],
        embed=None if text is None else lambda frozen, part: Text(part["text"], part["shown"]),
        drop_text=0.0,
        ema=0.0,
        accumulate=1,
    )
    part = {"tokens": rows}
    if whole is not None:
        part |= {"text": whole.embeddings, "shown": whole.mask}
    current = state.create(
        jax.jit(fresh.network.init)(jax.random.key(0), tokens, text)["params"], optimizer
    )
    compiled = jax.jit(step, donate_argnums=0)
    recent: list[float] = []
    with Progress(steps, "one pair") as progress:
        for _ in range(steps):
            current, metrics = compiled(current, {}, {"video": part}, jax.random.key(1))
            recent = [*recent[1 - EVERY :], float(metrics["loss/total"])]
            progress.update()
            if len(recent) == EVERY and max(recent) < bar:
                break
    fresh.params["maskgit"] = current.params
    sample = fresh.sample([caption], seed=0, guidance=0.0, choice_temperature=0.0)
    same = float(np.mean(sample.tokens.reshape(tokens.shape) == tokens))
    return Overfit(float(np.mean(recent)), int(current.step)), same
