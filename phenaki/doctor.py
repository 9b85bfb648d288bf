"""Why a model fails: checks of a run, each with what to change where it is not healthy."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki import build, causality, checkpoint, losses, masking
from phenaki.data import batches
from phenaki.pipeline import Phenaki
from phenaki.train import logs
from phenaki.types import Text

RECENT = 20  # logged lines that count as now


class Finding(NamedTuple):
    """One check: what was measured, and what to change when it is not `healthy`."""

    check: str
    healthy: bool
    figure: str
    advice: str


def examine(run: str | Path) -> list[Finding]:
    """The checks of a run's kind on its newest checkpoint, its log and a batch of its data.

    Raises:
        UserError: `run` is not the workdir of a training with a checkpoint.
    """
    params, config, _ = checkpoint.load_run(run)
    lines = logs.read(run)[-RECENT:]
    if "model" in config:
        return examine_maskgit(Phenaki.load(run), lines)
    return examine_tokenizer(params, config, lines)


def examine_tokenizer(params, config: ConfigDict, lines: Sequence[dict]) -> list[Finding]:
    """Causality, reconstruction, codebook and discriminator of stage 1."""
    model = build.tokenizer(config)
    video = _batch(config, lambda captions: {})["video"]["video"].astype(np.float32) / 255

    def apply(method):
        network = jax.jit(lambda x: model.apply({"params": params}, x, method=method))
        return lambda x: np.asarray(network(jnp.asarray(x)))

    encode, decode = apply("encode"), apply("decode")
    time = config.tokenizer.patch[0]
    leaks = causality.leaks(encode, decode, video[:2], time, config.tokenizer.codebook)
    error = np.mean((decode(encode(video)) - video) ** 2)
    plain = np.mean((video - video.mean((1, 2, 3), keepdims=True)) ** 2)
    better = 10 * math.log10(max(plain, 1e-10) / max(error, 1e-10))
    findings = [
        Finding(
            "the past does not depend on the future",
            not leaks,
            leaks[0] if leaks else "nothing before a change moved",
            "look for a layer over time without the causal mask, or statistics taken over time.",
        ),
        Finding(
            "clips are reconstructed",
            better > 3,
            f"{-10 * math.log10(error):.1f} dB, {better:.1f} dB above one colour per clip",
            "train longer, or raise config.optim.rate; see whether the codebook is used.",
        ),
    ]
    if usage := _recent(lines, "codebook/usage"):
        findings.append(
            Finding(
                "the codebook is used",
                usage >= 0.05,
                f"{usage:.1%} of the codes over the last window",
                "it has collapsed: set config.codebook.revive_until, for most of the training.",
            )
        )
    real, fake = (_recent(lines, f"gan/accuracy_{kind}") for kind in ("real", "fake"))
    if real is not None and fake is not None:
        findings.append(
            Finding(
                "the discriminator can be fooled",
                min(real, fake) < 0.95,
                f"{real:.0%} of real and {fake:.0%} of fake frames told right",
                "it wins: raise config.gan.r1, start it later, or lower config.loss.adversarial.",
            )
        )
    return findings


def examine_maskgit(model: Phenaki, lines: Sequence[dict]) -> list[Finding]:
    """Learning, masks, guidance and the use of text of stage 2."""
    config = model.config
    part = _batch(config, lambda captions: {"captions": captions})["video"]
    codes = model.encode(part["video"].astype(np.float32) / 255).reshape(len(part["video"]), -1)
    hidden = masking.sample_mask(jax.random.key(0), codes.shape)
    params = {"params": model.params["maskgit"]}
    network = jax.jit(lambda ids, text: model._model.apply(params, ids, text))
    shown = masking.apply_mask(codes, hidden, model._model.mask_id)

    def entropy(text):
        logits = network(shown, text)
        return float(losses.masked_cross_entropy(logits, codes, hidden)[0].mean()), logits

    text = _embed(model, part["captions"]) if config.text else None
    measured, logits = entropy(text)
    chance = math.log(config.tokenizer.codebook)
    logged = _recent(lines, "video/loss")
    predicted = len(np.unique(np.asarray(logits.argmax(-1))[np.asarray(hidden)]))
    possible = min(config.tokenizer.codebook, int(hidden.sum()))
    findings = [
        Finding(
            "hidden codes are predicted better than by chance",
            measured < 0.95 * chance,
            f"cross-entropy {measured:.2f}, chance {chance:.2f}",
            "train longer; if the logged loss is low, its mask is not the one of the sampler.",
        ),
        Finding(
            "predictions vary",
            predicted >= 0.01 * possible,
            f"{predicted} different codes at {int(hidden.sum())} hidden places",
            "the model has collapsed to few codes: lower config.optim.rate, look at the tokenizer.",
        ),
    ]
    if logged is not None:
        findings.append(
            Finding(
                "the loss is of the hidden codes",
                measured < 1.5 * logged + 0.5,
                f"{measured:.2f} measured on hidden codes, {logged:.2f} logged",
                "is the mask inverted? The loss must be taken where codes are hidden, only there.",
            )
        )
    if text is None:
        return findings
    share = _recent(lines, "video/unconditional") or 0.0
    other, _ = entropy(jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), text))
    return [
        *findings,
        Finding(
            "guidance is trained",
            0.03 <= share <= 0.5,
            f"{share:.1%} of the samples trained without text",
            "set config.drop_text=0.1: without such samples the unconditional logits are noise.",
        ),
        Finding(
            "text is used",
            other > measured + 0.01,
            f"cross-entropy {other:.2f} with other samples' captions, {measured:.2f} with theirs",
            "train longer; see that captions are not empty and that they vary.",
        ),
    ]


def _batch(config, encode_text):
    with contextlib.closing(batches.make(config, encode_text)) as made:
        return next(made)


def _embed(model: Phenaki, captions) -> Text:
    encoder = build.text_encoder(model.config)
    ids = build.vocabulary(model.config).encode(captions)
    return jax.jit(lambda ids: build.embed(encoder, model.params["text"], ids))(ids)


def _recent(lines, name) -> float | None:
    values = [line[name] for line in lines if name in line]
    return float(np.mean(values)) if values else None
