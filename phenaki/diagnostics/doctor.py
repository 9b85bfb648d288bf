"""Why a model fails: checks of a run or a config, each with what to change where it is ill."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from phenaki.data import batches
from phenaki.diagnostics import causality, overfit
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations
from phenaki.losses import masked_tokens
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.sampling import schedules
from phenaki.train import health, inputs, logs, maskgit
from phenaki.train import tokenizer as stage_1
from phenaki.train.health import Finding, HealthOptions
from phenaki.train.stage import Stage

CLIP_BAR = 30.0  # dB of one clip
PAIR_BAR = 0.05  # cross-entropy of one pair
DROWNED = 100  # times the gradient of L2
SAMPLES = 16  # at most so many are looked at


def examine_run(run: str | Path, steps: int) -> list[Finding]:
    """The checks of a run's kind: its newest checkpoint, its log, and what its config can learn.

    `steps` bounds each training of one sample; 0 leaves them out.

    Raises:
        UserError: `run` is not the workdir of a training with a checkpoint.
    """
    params, config, _ = checkpoint.load_run(run)
    lines = logs.read(run)
    logged = health.read(lines, HealthOptions.of(config.to_dict()), least=1)
    if config.kind == "maskgit":
        model = Phenaki.load(run)
        return [*logged, *examine_maskgit(model, lines), *learn_pair(model, steps)]
    stage = stage_1.make_stage(config)
    with contextlib.closing(checkpoint.Checkpoints(run)) as checkpoints:
        state, _ = checkpoints.restore(jax.jit(stage.init)(jax.random.key(config.seed)))
    return [
        *examine_tokenizer(params, config),
        *logged,
        examine_gradients(stage, state, config),
        *learn_clip(config, steps),
    ]


def examine_config(config: ConfigDict, tokenizer: str | Path | None, steps: int) -> list[Finding]:
    """What can be said before any training; stage 2's configs need a `tokenizer`, as training does.

    Raises:
        UserError: the tokenizer is missing or not one, or the config is wrong.
    """
    if migrations.with_kind(config.to_dict())["kind"] == "tokenizer":
        stage = stage_1.make_stage(config)
        state = jax.jit(stage.init)(jax.random.key(config.seed))
        return [
            examine_causality(state.params, config),
            examine_gradients(stage, state, config),
            *learn_clip(config, steps),
        ]
    if tokenizer is None:
        raise UserError("--tokenizer is required with a config of stage 2.")
    params, stage1, digest = checkpoint.load_tokenizer(tokenizer)
    whole = maskgit.with_tokenizer(config, stage1, digest)
    networks = {"tokenizer": params}
    if config.text:
        networks["text"] = factory.text_params(config)
    return learn_pair(Phenaki(whole, networks), steps)


def examine_causality(params, config: ConfigDict) -> Finding:
    """A certificate for these parameters: encoder, decoder, prefixes."""
    encode, decode = _coder(params, config)
    video = _clips(config)[:2].astype(np.float32) / 255
    time = config.tokenizer.patch[0]
    leaks = causality.leaks(encode, decode, video, time, config.tokenizer.codebook)
    return Finding(
        "the past does not depend on the future",
        not leaks,
        leaks[0] if leaks else "nothing before a change moved",
        "look for a layer over time without the causal mask, or statistics taken over time.",
    )


def examine_tokenizer(params, config: ConfigDict) -> list[Finding]:
    """Causality and reconstruction of stage 1."""
    encode, decode = _coder(params, config)
    video = _clips(config).astype(np.float32) / 255
    error = np.mean((decode(encode(video)) - video) ** 2)
    plain = np.mean((video - video.mean((1, 2, 3), keepdims=True)) ** 2)
    better = 10 * math.log10(max(plain, 1e-10) / max(error, 1e-10))
    return [
        examine_causality(params, config),
        Finding(
            "clips are reconstructed",
            better > 3,
            f"{-10 * math.log10(error):.1f} dB, {better:.1f} dB above one colour per clip",
            "train longer, or raise config.optim.rate; see whether the codebook is used.",
        ),
    ]


def examine_gradients(stage: Stage, state, config: ConfigDict) -> Finding:
    """How hard each term of equation 2 pulls at the tokenizer."""
    norms = gradient_norms(stage, state, jnp.asarray(_clips(config)))
    largest = max(norms, key=lambda name: norms[name])
    return Finding(
        "no term drowns the reconstruction",
        norms[largest] <= DROWNED * norms["l2"],
        "gradient norms " + ", ".join(f"{name} {norm:.2g}" for name, norm in norms.items()),
        f"lower config.loss.{largest.removesuffix(stage_1.PROXY)}.",
    )


def gradient_norms(stage: Stage, state, video: jax.Array) -> dict[str, float]:
    """The norm of each weighted term's gradient in the tokenizer, on uint8 clips [b f h w 3]."""
    player = state.extra.get("discriminator")

    @jax.jit
    def norms(params):
        def terms(generator):
            both = {"generator": generator}
            if player is not None:
                both["discriminator"] = player["params"]
            averages = player["averages"] if player is not None else None
            real = inputs.pixels({"video": video})
            key = jax.random.key(0)
            return stage.loss(both, stage.frozen, real, key, state.step, averages).terms

        values, pull = jax.vjp(terms, params)
        zeros = jax.tree.map(jnp.zeros_like, values)
        return {
            name: optax.tree.norm(pull(zeros | {name: jnp.ones_like(value)})[0])
            for name, value in values.items()
        }

    return {name: float(norm) for name, norm in norms(state.params).items()}


def examine_maskgit(model: Phenaki, lines) -> list[Finding]:
    """Learning, masks and the use of text of stage 2, whose log is `lines`."""
    config = model.config
    part = _batch(config, lambda captions: {"captions": captions})["video"]
    tokens = _codes(model, part["video"])
    hidden = schedules.sample_mask(jax.random.key(0), tokens.shape)
    params = {"params": model.params["maskgit"]}
    network = jax.jit(lambda ids, text: model.network.apply(params, ids, text))
    shown = schedules.apply_mask(tokens, hidden, model.network.mask_id)

    def entropy(text):
        loss, _ = masked_tokens.masked_cross_entropy(network(shown, text), tokens, hidden)
        return float(loss.mean())

    text = model.embed(part["captions"]) if config.text else None
    measured = entropy(text)
    chance = math.log(config.tokenizer.codebook)
    findings = [
        Finding(
            "hidden codes are predicted better than by chance",
            measured < 0.95 * chance,
            f"cross-entropy {measured:.2f}, chance {chance:.2f}",
            "train longer; if the logged loss is low, its mask is not the one of the sampler.",
        )
    ]
    recent = [line["video/loss"] for line in lines if "video/loss" in line][-health.RECENT :]
    if recent:
        logged = float(np.mean(recent))
        findings.append(
            Finding(
                "the loss is of the hidden codes",
                measured < 1.5 * logged + 0.5,
                f"{measured:.2f} measured on hidden codes, {logged:.2f} logged",
                "is the mask inverted? The loss must be taken where codes are hidden, only there.",
            )
        )
    if text is not None:
        other = entropy(jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), text))
        findings.append(
            Finding(
                "text is used",
                other > measured + 0.01,
                f"cross-entropy {other:.2f} with other samples' captions, {measured:.2f} with "
                "theirs",
                "train longer; see that captions are not empty and that they vary.",
            )
        )
    return findings


def learn_clip(config: ConfigDict, steps: int) -> list[Finding]:
    """Whether a fresh tokenizer learns one clip by heart, without and with the discriminator."""
    if not steps:
        return []
    video = _clips(config)[:1]
    findings = []
    for adversary in (False, True):
        reached = overfit.clip(config, video, bar=CLIP_BAR, adversary=adversary, steps=steps)
        against = " against a discriminator" if adversary else ""
        findings.append(
            Finding(
                f"one clip is learned{against}",
                reached.value > CLIP_BAR,
                f"{reached.value:.1f} dB after {reached.steps} steps",
                "lower config.loss.adversarial or raise config.gan.r1."
                if adversary
                else "the network or its losses are broken, or --steps is too small for it.",
            )
        )
    return findings


def learn_pair(model: Phenaki, steps: int) -> list[Finding]:
    """Whether a fresh MaskGIT learns one clip's codes and caption, and samples them back."""
    if not steps:
        return []
    part = _batch(model.config, lambda captions: {"captions": captions})["video"]
    tokens = np.asarray(_codes(model, part["video"][:1]))
    caption = part["captions"][0]
    reached, same = overfit.pair(model, tokens, caption, bar=PAIR_BAR, steps=steps)
    return [
        Finding(
            "one pair of text and codes is learned and sampled back",
            reached.value < PAIR_BAR and same == 1,
            f"cross-entropy {reached.value:.3f} after {reached.steps} steps, {same:.0%} of the "
            "codes sampled back",
            "the network, its mask or the sampler is broken, or --steps is too small for it.",
        )
    ]


def _coder(params, config):
    model = factory.tokenizer(config)

    def apply(method) -> Callable[[np.ndarray], np.ndarray]:
        network = jax.jit(lambda x: model.apply({"params": params}, x, method=method))
        return lambda x: np.asarray(network(jnp.asarray(x)))

    return apply("encode"), apply("decode")


def _codes(model: Phenaki, video: np.ndarray):
    return model.encode(video.astype(np.float32) / 255).reshape(len(video), -1)


def _clips(config) -> np.ndarray:
    return _batch(config, lambda captions: {})["video"]["video"]


def _batch(config, encode_text):
    config = ConfigDict(config.to_dict())
    config.data.batch = min(config.data.batch, SAMPLES)
    with contextlib.closing(batches.make(config, encode_text)) as made:
        return next(made)
