"""Diagnostics of a run or a config: checks, each with a fix for its failure."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki.data import batches
from phenaki.diagnostics import causality, gradients, overfit
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations
from phenaki.io.checkpoint_manager import Checkpoints
from phenaki.io.paths import PathLike
from phenaki.losses import masked_tokens
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.sampling import schedules
from phenaki.train import health, logs, maskgit
from phenaki.train import tokenizer as stage_1
from phenaki.train.health import Finding, HealthOptions
from phenaki.train.stage import RunOptions, Stage

SAMPLES = 16  # clips of a batch that are examined, at most


class TokenizerCase(NamedTuple):
    """What the checks of stage 1 take from a config."""

    stage: Stage
    clips: np.ndarray  # uint8 [b f h w 3]
    seed: int
    overfits: Mapping[str, Stage]  # see `overfit.check_clip`


def examine_run(run: PathLike, steps: int) -> Iterator[Finding]:
    """The checks of a run's kind: its newest checkpoint, its log, and what its networks can learn.

    One after another, as each is done: some take minutes. `steps` bounds each run on one sample; 0
    leaves these out.

    Raises:
        UserError: `run` is not the workdir of a training run with a checkpoint, or is a critic's.
    """
    params, config, _ = checkpoint.load_run(run)
    lines = logs.read(run)
    fields = config.to_dict()
    if fields["kind"] == "critic":
        raise UserError(
            f"{run}: is a critic's run; the checks are those of tokenizers and MaskGIT. phenaki "
            "compare plots what it has logged."
        )
    yield from health.read(lines, HealthOptions.of(fields), least=1)
    if fields["kind"] == "maskgit":
        model = Phenaki.load(run)
        clips, captions = captioned_clips(model)
        yield from examine_maskgit(model, clips, captions, lines)
        yield from overfit_pair(model, clips, captions, steps)
        return
    case = tokenizer_case(config, steps)
    with contextlib.closing(Checkpoints(run)) as checkpoints:
        state, _ = checkpoints.restore(jax.jit(case.stage.init)(jax.random.key(case.seed)))
    yield from examine_tokenizer(case.stage.model, params, case.clips)
    yield gradients.check(case.stage, state, case.clips)
    yield from overfit.check_clip(case.overfits, case.clips[:1], steps, case.seed)


def examine_config(config: ConfigDict, tokenizer: PathLike | None, steps: int) -> Iterator[Finding]:
    """The checks that need no training run; stage 2's configs need a `tokenizer`, as training does.

    Raises:
        UserError: the tokenizer is missing or not one, or the config is wrong.
    """
    fields = migrations.with_kind(config.to_dict())
    if fields["kind"] == "tokenizer":
        migrations.of_kind("tokenizer", fields)
        case = tokenizer_case(config, steps)
        state = jax.jit(case.stage.init)(jax.random.key(case.seed))
        yield examine_causality(case.stage.model, state.params, case.clips)
        yield gradients.check(case.stage, state, case.clips)
        yield from overfit.check_clip(case.overfits, case.clips[:1], steps, case.seed)
        return
    if tokenizer is None:
        raise UserError("--tokenizer is required with a config of stage 2.")
    params, stage1, digest = checkpoint.load_tokenizer(tokenizer)
    whole = maskgit.with_tokenizer(config, stage1, digest)
    networks = {"tokenizer": params}
    model = Phenaki(whole, networks)
    if model.has_text:
        model.params["text"] = factory.text_params(whole)
    yield from overfit_pair(model, *captioned_clips(model), steps)


def tokenizer_case(config: ConfigDict, steps: int) -> TokenizerCase:
    """The stage of a tokenizer's config, a few of its clips, and its stages for one clip."""
    stage = stage_1.make_stage(config)
    options = RunOptions.of(config.to_dict())
    clips, _ = batches.first(config, _count(options))
    overfits: Mapping[str, Stage] = {}
    if steps:
        overfits = stage_1.overfit_stages(
            config,
            rate=overfit.RATE,
            warmup=overfit.WARMUP,
            revive_every=overfit.EVERY,
            steps=steps,
        )
    return TokenizerCase(stage, clips["video"], options.seed, overfits)


def captioned_clips(model: Phenaki) -> tuple[np.ndarray, list[str | None]]:
    """A few training clips of a model, uint8 [b f h w 3], and their captions."""
    options = RunOptions.of(model.config.to_dict())
    arrays, captions = batches.first(model.config, _count(options))
    return arrays["video"], captions


def _count(options: RunOptions) -> int:
    """How many clips are examined, or images of a run on images alone."""
    sizes = options.batch_sizes
    return min(sizes["batch"] or sizes["image_batch"], SAMPLES)


def examine_causality(model: Any, params: Any, clips: np.ndarray) -> Finding:
    """Whether encoder and decoder are causal with these parameters, on uint8 `clips`."""
    encode, decode = _coder(model, params)
    video = clips[:2].astype(np.float32) / 255
    leaks = causality.leaks(encode, decode, video, model.patch[0], model.codebook)
    return Finding(
        "the past does not depend on the future",
        not leaks,
        leaks[0] if leaks else "nothing before a change moved",
        "look for a layer over time without the causal mask, or statistics taken over time.",
    )


def examine_tokenizer(model: Any, params: Any, clips: np.ndarray) -> list[Finding]:
    """Causality and reconstruction of a tokenizer on uint8 `clips`."""
    encode, decode = _coder(model, params)
    video = clips.astype(np.float32) / 255
    error = np.mean((decode(encode(video)) - video) ** 2)
    plain = np.mean((video - video.mean((1, 2, 3), keepdims=True)) ** 2)
    better = 10 * math.log10(max(plain, 1e-10) / max(error, 1e-10))
    return [
        examine_causality(model, params, clips),
        Finding(
            "clips are reconstructed",
            better > 3,
            f"{-10 * math.log10(error):.1f} dB, {better:.1f} dB above one colour per clip",
            # Colourful clips collapse to one colour at rates that plainer ones need.
            "lower config.optim.rate, by four, if it does not rise over the steps; else train "
            "longer.",
        ),
    ]


def examine_maskgit(
    model: Phenaki,
    clips: np.ndarray,
    captions: Sequence[str | None],
    lines: Sequence[Mapping[str, float]],
) -> list[Finding]:
    """Learning, masks and the use of text of stage 2, whose log is `lines`."""
    tokens = _tokens(model, clips)
    mask = schedules.sample_mask(jax.random.key(0), tokens.shape)
    masked = schedules.apply_mask(tokens, mask, model.network.mask_id)
    params = {"params": model.params["maskgit"]}
    network = jax.jit(lambda ids, text: model.network.apply(params, ids, text))

    def entropy(text):
        loss, _ = masked_tokens.masked_cross_entropy(network(masked, text), tokens, mask)
        return float(loss.mean())

    text = model.embed(captions) if "text" in model.params else None
    measured = entropy(text)
    chance = math.log(model.network.codebook)
    findings = [
        Finding(
            "masked tokens are predicted better than by chance",
            measured < 0.95 * chance,
            f"cross-entropy {measured:.2f}, chance {chance:.2f}",
            "train longer; if the logged loss is low, its mask is not the one of the sampler.",
        )
    ]
    losses = [line.get("video/loss", line.get("image/loss")) for line in lines]
    recent = [loss for loss in losses if loss is not None][-health.RECENT :]
    if recent:
        logged = float(np.mean(recent))
        findings.append(
            Finding(
                "the loss is of the masked tokens",
                measured < 1.5 * logged + 0.5,
                f"{measured:.2f} measured on masked tokens, {logged:.2f} logged",
                "is the mask inverted? The loss must be taken over masked tokens only.",
            )
        )
    if text is not None:
        other = entropy(jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), text))
        findings.append(
            Finding(
                "text is used",
                other > measured + 0.01,
                f"cross-entropy {other:.2f} with other samples' captions, {measured:.2f} with "
                "their own",
                "train longer; see that captions are not empty and that they vary.",
            )
        )
    return findings


def overfit_pair(
    model: Phenaki, clips: np.ndarray, captions: Sequence[str | None], steps: int
) -> list[Finding]:
    """Whether a fresh MaskGIT learns the first clip and its caption; nothing for 0 `steps`."""
    if not steps:
        return []
    tokens = np.asarray(_tokens(model, clips[:1]))
    return [overfit.check_pair(model, tokens, captions[0], steps)]


def _coder(model, params):
    def apply(method) -> Callable[[np.ndarray], np.ndarray]:
        network = jax.jit(lambda x: model.apply({"params": params}, x, method=method))
        return lambda x: np.asarray(network(jnp.asarray(x)))

    return apply("encode"), apply("decode")


def _tokens(model: Phenaki, video: np.ndarray):
    """Tokens [b s] of uint8 clips."""
    return model.encode(video.astype(np.float32) / 255).reshape(len(video), -1)
