"""Overfit-one-batch checks: a network that cannot learn a single sample is broken."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from phenaki.losses.tokenizer import psnr
from phenaki.pipeline import Phenaki
from phenaki.progress import Progress
from phenaki.train import maskgit, optim, state
from phenaki.train.health import Finding
from phenaki.train.stage import Stage
from phenaki.types import Text

RATE, WARMUP = 1e-3, 10
EVERY = 10  # steps between two measurements
ROWS = 8  # of the one pair, each with its own mask
CLIP_BAR = 30.0  # dB of one clip
PAIR_BAR = 0.05  # cross-entropy of one pair


class Overfit(NamedTuple):
    """The value that was reached, and the number of steps it took."""

    value: float
    steps: int


def clip(
    stage: Stage, video: np.ndarray, *, bar: float, steps: int, seed: int, what: str
) -> Overfit:
    """Trains a fresh tokenizer on `video` uint8 [1 f h w 3]; `value` is its PSNR in dB.

    Stops once the PSNR is above `bar`. `what` names the progress line.
    """
    current = jax.jit(stage.init)(jax.random.key(seed))
    step = jax.jit(stage.step, donate_argnums=0)
    pixels = jnp.asarray(video, jnp.float32) / 255

    @jax.jit
    def quality(params):
        fake: Any = stage.model.apply({"params": params}, pixels)
        return psnr(jnp.square(fake.video - pixels).mean())

    with Progress(steps, what) as progress:
        for number in range(1, steps + 1):
            key = jax.random.key(seed)
            current, _ = step(current, stage.frozen, {"video": {"video": video}}, key)
            progress.update()
            if number % EVERY == 0 and (value := float(quality(current.params))) > bar:
                return Overfit(value, number)
    return Overfit(float(quality(current.params)), steps)


def pair(
    model: Phenaki, tokens: np.ndarray, caption: str | None, *, bar: float, steps: int
) -> tuple[Overfit, float]:
    """Trains a fresh MaskGIT on `tokens` [1 s] and their caption until its loss is below `bar`.

    Returns the `Overfit` of the loss, and the fraction of the tokens that sampling with the caption
    gives back.
    """
    network = model.network.clone(dropout=0.0, attention_dropout=0.0)
    rate = optim.schedule(peak=RATE, warmup=WARMUP, decay=None)
    optimizer = optim.adamw(rate, b1=0.9, b2=0.99, weight_decay=0.0, clip=1.0)
    text = model.embed([caption]) if "text" in model.params else None
    part = {"tokens": jnp.repeat(jnp.asarray(tokens), ROWS, axis=0)}
    if text is not None:
        rows = jax.tree.map(lambda x: jnp.repeat(x, ROWS, axis=0), text)
        part |= {"text": rows.embeddings, "shown": rows.mask}
    step = maskgit.MaskGITStep(
        network,
        optimizer,
        encode=lambda frozen, part: part["tokens"],
        embed=None if text is None else lambda frozen, part: Text(part["text"], part["shown"]),
        drop_text=0.0,
        ema=0.0,
        accumulate=1,
    )
    params = jax.jit(network.init)(jax.random.key(0), tokens, text)["params"]
    current = state.create(params, optimizer)
    compiled = jax.jit(step, donate_argnums=0)
    recent: list[float] = []
    with Progress(steps, "one pair") as progress:
        for _ in range(steps):
            current, metrics = compiled(current, {}, {"video": part}, jax.random.key(1))
            recent = [*recent[1 - EVERY :], float(metrics["loss/total"])]
            progress.update()
            if len(recent) == EVERY and max(recent) < bar:
                break
    fitted = Phenaki(model.config, {**model.params, "maskgit": current.params})
    _, rows, columns = model.spec.grid(1)
    nothing = np.zeros((tokens.shape[1] // (rows * columns), rows, columns), bool)
    sampler: Any = dict(guidance=0.0, choice_temperature=0.0)
    sample = fitted.sample([caption], seed=0, known=nothing, **sampler)
    same = float(np.mean(sample.tokens.reshape(1, -1) == tokens))
    return Overfit(float(np.mean(recent)), int(current.step)), same


def check_clip(
    overfits: Mapping[str, Stage], video: np.ndarray, steps: int, seed: int
) -> list[Finding]:
    """Whether fresh tokenizers learn one clip: "alone", and "against a discriminator".

    `overfits` has their stages by these names, the second where there is one; `video` is uint8
    [1 f h w 3].
    """
    advice = {
        "alone": "the network or its losses are broken, or --steps is too small for it.",
        "against a discriminator": "lower config.loss.adversarial or raise config.gan.r1.",
    }
    findings = []
    for name, stage in overfits.items():
        reached = clip(stage, video, bar=CLIP_BAR, steps=steps, seed=seed, what=f"one clip {name}")
        findings.append(
            Finding(
                f"one clip is learned {name}",
                reached.value > CLIP_BAR,
                f"{reached.value:.1f} dB after {reached.steps} steps",
                advice[name],
            )
        )
    return findings


def check_pair(model: Phenaki, tokens: np.ndarray, caption: str | None, steps: int) -> Finding:
    """Whether a fresh MaskGIT learns one clip's tokens and caption, and samples them back."""
    reached, same = pair(model, tokens, caption, bar=PAIR_BAR, steps=steps)
    return Finding(
        "one pair of text and tokens is learned and sampled back",
        reached.value < PAIR_BAR and same == 1,
        f"cross-entropy {reached.value:.3f} after {reached.steps} steps, {same:.0%} of the tokens "
        "sampled back",
        "the network, its mask or the sampler is broken, or --steps is too small for it.",
    )
