"""Stage 1, training of a video tokenizer: step, networks and run (§2.1, equation 2)."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from phenaki.blocks import sharding
from phenaki.data import batches
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations
from phenaki.io.paths import PathLike
from phenaki.losses import gan, perceptual
from phenaki.losses.tokenizer import Adversary, TokenizerLoss, psnr
from phenaki.models import factory
from phenaki.train import codebook, inputs, kinds, loop, samples, state
from phenaki.train.optim import OptimOptions, make_optimizer, value_and_grad
from phenaki.train.profiler import NOTHING, Observe
from phenaki.train.stage import RunOptions, Stage
from phenaki.train.state import TrainState, apply_gradients
from phenaki.train.warm_start import warm_start
from phenaki.train.workdir import inputs_of, open_workdir

PROXY = "_proxy"  # suffix of the terms of untrained feature networks


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizerStep:
    """One training step: step(state, frozen, batch, key) -> (state, metrics).

    Tokenizer and discriminator share one forward pass; each learns from its own loss only.
    """

    loss: TokenizerLoss
    optimizer: optax.GradientTransformation
    ema: float  # decay of the averaged parameters
    accumulate: int  # micro-batches
    usage_window: int  # steps; see codebook.count_and_revive
    revive_until: int  # step; 0: never
    decay: float = 0.0  # of the EMA codebook; 0: codes learn by gradient (equation 1)
    from_data: bool = True  # first codes; False: a trained tokenizer's, which keep their meaning

    def __call__(self, state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        index, params = state.step, trainable(state)
        rows = {kind: len(part["video"]) for kind, part in batch.items()}
        loss_fn = functools.partial(batch_loss, self.loss, state, frozen, rows)
        _, aux, grads = value_and_grad(loss_fn, params, batch, key, self.accumulate)
        metrics, counts, encoded = aux
        metrics = jax.tree.map(jnp.mean, metrics)
        named = name_metrics(metrics, rows) | {"grad_norm": optax.tree.norm(grads["generator"])}
        state = apply_gradients(state, grads["generator"], self.optimizer, ema=self.ema)
        if self.loss.adversary is not None:
            named["gan/grad_norm"] = optax.tree.norm(grads["discriminator"])
            adversary, own = self.loss.adversary, grads["discriminator"]
            state = train_discriminator(state, index, adversary, own, metrics)
        encoded = encoded.reshape(-1, self.loss.model.code_dim)
        if self.decay:
            used = params["generator"]["quantizer"]["embedding"]
            state = codebook.ema_update(state, used, encoded, self.decay)
        state, usage = codebook.count_and_revive(
            state, index, counts.sum(0), encoded, key,
            usage_window=self.usage_window, revive_until=self.revive_until,
            from_data=self.from_data,
        )  # fmt: skip
        return state, named | usage


def trainable(state: TrainState) -> dict[str, Any]:
    """The parameters of a state by network: "generator" and, if it has one, "discriminator"."""
    params = {"generator": state.params}
    if "discriminator" in state.extra:
        params["discriminator"] = state.extra["discriminator"]["params"]
    return params


@jax.named_scope("tokenizer")
def batch_loss(loss: TokenizerLoss, state: TrainState, frozen, rows, params, batch, key):
    """(loss, (metrics by kind, code counts [k], encoder outputs [n e])) of a micro-batch.

    Every sample has the same weight, whatever its kind; `rows` are those of the whole batch.
    """
    keys = kinds.split_by_kind(key, batch)
    averages = state.extra["discriminator"]["averages"] if "discriminator" in state.extra else None
    out = {
        kind: loss(params, frozen, inputs.pixels(part), keys[kind], state.step, averages)
        for kind, part in batch.items()
    }
    total = kinds.weighted_mean({kind: one.loss for kind, one in out.items()}, rows)
    encoded = jnp.concatenate([one.inputs for one in out.values()])
    metrics = {kind: one.metrics for kind, one in out.items()}
    return total, (metrics, sum(one.counts for one in out.values()), encoded)


def name_metrics(metrics: Mapping[str, Mapping[str, Any]], rows: Mapping[str, int]):
    """Metrics of the step from those of each kind: names of clips have no prefix; PSNR of MSE."""
    total = kinds.weighted_mean({kind: metrics[kind]["loss/total"] for kind in rows}, rows)
    named = {"loss/total": total}
    for name, value in kinds.prefixed(metrics).items():
        name = name.removeprefix("video/")
        if name.endswith("loss/total"):
            continue
        # The mean is taken over squared errors, of all micro-batches: PSNR is no mean of PSNRs.
        if "mse/" in name:
            name, value = name.replace("mse/", "psnr/"), psnr(value)
        named[name] = value
    return named


@jax.named_scope("optimizer")
def train_discriminator(
    state: TrainState, index, adversary: Adversary, grads, metrics
) -> TrainState:
    """One optimiser update of the discriminator, and of its mean logits, at step `index`.

    Before `adversary.start` it stays at its initial values, with its optimiser: zero gradients
    would still decay its weights, and its warm-up begins when it joins.
    """
    before = state.extra["discriminator"]
    updates, opt_state = adversary.optimizer.update(grads, before["opt_state"], before["params"])
    logits = metrics["video"] if "video" in metrics else metrics["image"]
    after = {
        "params": optax.apply_updates(before["params"], updates),
        "opt_state": opt_state,
        "averages": gan.update_averages(before["averages"], logits, adversary.average_decay),
    }
    started = index >= adversary.start
    own = jax.tree.map(lambda old, new: jnp.where(started, new, old), before, after)
    return dataclasses.replace(state, extra=state.extra | {"discriminator": own})


def initial_extra(loss: TokenizerLoss, discriminator=None, ema_codebook: bool = False) -> dict:
    """`TrainState.extra` at step 0; `discriminator` are the parameters of one that trains."""
    model = loss.model
    extra: dict = codebook.initial_extra(model.codebook, model.code_dim if ema_codebook else None)
    if loss.adversary is not None:
        extra["discriminator"] = {
            "params": discriminator,
            "opt_state": loss.adversary.optimizer.init(discriminator),
            "averages": gan.initial_averages(),
        }
    return extra


def make_adversary(
    discriminator,
    optimizer,
    *,
    loss: str,
    lecam_decay: float,
    adaptive_limit: float,
    start: int,
    **options,
) -> Adversary:
    """The adversary of `config.gan`; `options` are those of `gan.make_gan_loss`."""
    gan_loss = gan.make_gan_loss(
        lambda params, clips: discriminator.apply({"params": params}, clips),
        gan.LOSSES[loss],
        start=start,
        **options,
    )
    return Adversary(gan_loss, optimizer, lecam_decay, adaptive_limit, start)


def make_stage(config: ConfigDict, started: bool = False) -> Stage:
    """The networks and the step of stage 1, with the frozen networks that its losses need.

    A run that `started` before has its parameters in a checkpoint: `config.start` is not opened.
    """
    spec = factory.video_spec(config)
    model, discriminator = factory.tokenizer(config), None
    quantizer = config.tokenizer.get("quantizer", "vq")
    if config.codebook.decay and quantizer != "vq":
        raise UserError(
            f"config.codebook.decay={config.codebook.decay}: {quantizer} has no codebook to "
            "average; nearest is 0."
        )
    if config.loss.adversarial:
        discriminator = factory.discriminator(config.gan.network, config.gan.width)
    terms = perceptual.terms(dict(config.loss), dict(config.features), spec.frames)
    frozen = factory.frozen_features(dict(config.loss), config.features.weights)
    start = checkpoint.load_tokenizer(config.start)[0] if config.start and not started else None
    optim = OptimOptions(**config.optim)
    optimizer, weights = make_optimizer(optim), dict(config.loss)
    beta = weights.pop("beta")

    if config.remat != "none":  # the feature networks' activations outweigh the tokenizer's
        terms = {name: jax.checkpoint(term) for name, term in terms.items()}
    if config.features.weights == "random":
        weights |= {f"{name}{PROXY}": weights.pop(name) for name in terms}
        terms = {f"{name}{PROXY}": term for name, term in terms.items()}
    adversary = None
    if discriminator is not None:
        options = {k: v for k, v in config.gan.items() if k not in ("network", "width")}
        # The paper trains the discriminator with the tokenizer's optimiser (B.1.2).
        adversary = make_adversary(discriminator, make_optimizer(optim), **options)
    loss = TokenizerLoss(model, weights, beta, terms, adversary)
    fixed = dict(config.codebook, from_data=start is None)
    step = TokenizerStep(loss, optimizer, optim.ema, optim.accumulate, **fixed)

    def init(key):
        clip = jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
        params = model.init(key, clip)["params"]
        if start is not None:
            params = warm_start(params, start, config.start)
        other = None
        if discriminator is not None:
            other = discriminator.init(jax.random.fold_in(key, 1), clip)["params"]
        extra = initial_extra(loss, other, ema_codebook=bool(step.decay))
        return state.create(params, optimizer, extra)

    return Stage(model, init, step, frozen, loss)


def train(
    config: ConfigDict,
    workdir: PathLike,
    devices=None,
    observe: Observe = NOTHING,
) -> TrainState:
    """Trains stage 1 of `config` (configs/cvivit.py) on `devices` (all); returns the final state.

    Raises:
        UserError: see `loop.run`; or the config is of another kind.
    """
    config = ConfigDict(migrations.of_kind("tokenizer", config.to_dict()))
    workdir = open_workdir(workdir, inputs_of(config.data, config.start))
    options = RunOptions.of(config.to_dict())
    resumed = sharding.agreed(checkpoint.has_checkpoint(workdir))
    stage, fps = make_stage(config, started=resumed), factory.video_spec(config).fps
    if stage.frozen and config.features.weights == "random":
        names = ", ".join(stage.frozen)
        logging.warning("config.features.weights=random: losses by %s teach nothing.", names)
    # The same clips on every host: samples are of the whole job.
    clips, _ = batches.first(config, samples.SHOWN)
    shown = clips["video"].astype(np.float32) / 255
    reconstruct = jax.jit(lambda params, video: stage.model.apply({"params": params}, video).video)

    def sample(current, frozen, index, directory):
        del frozen
        output = np.clip(sharding.fetch(reconstruct(current.ema, shown)), 0, 1)
        pairs = np.concatenate([shown, output], axis=3)
        labels = ["original | reconstruction"] * len(pairs)
        return samples.write_samples(directory, f"{index:07d}", pairs, labels, fps), {}

    open_batches = functools.partial(batches.make, config, inputs.no_captions)
    return loop.run(
        stage, open_batches, options, workdir, sample=sample, devices=devices, observe=observe
    )


def overfit_stages(
    config: ConfigDict, *, rate: float, warmup: int, revive_every: int, steps: int
) -> dict[str, Stage]:
    """Stages that learn a single clip in `steps`: "alone", and "against a discriminator".

    The first has the L2 and codebook terms only, the second the adversarial term, too, at its
    weight in `config`; a config without a discriminator has the first alone.
    """
    stages = {}
    weights = {"alone": 0.0}
    if config.loss.adversarial:
        weights["against a discriminator"] = config.loss.adversarial
    for name, weight in weights.items():
        fresh = ConfigDict(config.to_dict())
        fresh.loss.update(perceptual=0.0, video_perceptual=0.0, adversarial=weight)
        fresh.optim.update(rate=rate, warmup=warmup, decay=None, clip=1.0, accumulate=1)
        # The codebook starts from data (docs/paper.md#codebook-start).
        fresh.codebook.update(usage_window=revive_every, revive_until=steps // 2)
        fresh.start = ""
        stages[name] = make_stage(fresh)
    return stages
