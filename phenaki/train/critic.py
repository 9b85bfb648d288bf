"""Training of a token critic next to a frozen generator: step, networks, run.

Not in the paper: see docs/paper.md#token-critic.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from phenaki import pipeline
from phenaki.data import batches
from phenaki.io import migrations
from phenaki.io.paths import PathLike
from phenaki.losses import masked_tokens
from phenaki.models import factory, load
from phenaki.sampling import draws, schedules
from phenaki.train import inputs, kinds, logs, loop, samples, state
from phenaki.train.optim import OptimOptions, make_optimizer, value_and_grad
from phenaki.train.profiler import NOTHING, Observe
from phenaki.train.stage import RunOptions, Stage
from phenaki.train.state import TrainState, apply_gradients
from phenaki.train.workdir import open_workdir

# Sections of the config that a critic takes from its generator.
SHARED = ("video", "tokenizer", "model", "text", "fingerprint", "sample", "presets")


def was_masked(mask, sampled, tokens):
    """The label of the critic's paper: a token that was sampled right counts as sampled, too."""
    del sampled, tokens
    return mask


def differs(mask, sampled, tokens):
    """A token that was sampled right counts as real."""
    del mask
    return sampled != tokens


LABELS = {"masked": was_masked, "differs": differs}


@dataclasses.dataclass(frozen=True, eq=False)
class CriticStep:
    """One training step: step(state, frozen, batch, key) -> (state, metrics).

    The generator `frozen["maskgit"]` fills the masked tokens of a sample in one step, at
    temperature 1 and with its text. The critic learns to tell these tokens, by
    `label(mask, sampled, tokens)`, from all others. In some clips the tokens of the first frames
    are known: never masked, seen by both networks, and not counted in the loss.
    """

    critic: Any
    generator: Any
    optimizer: optax.GradientTransformation
    encode: Callable  # (frozen, sub-batch) -> tokens [b t m n] or [b s]
    embed: Callable | None  # (frozen, sub-batch) -> Text; None: an unconditional model
    per_frame: int  # tokens of a latent frame
    drop_text: float  # fraction of samples whose text the critic does not see
    prefix: float  # fraction of clips with known first frames, as in stories
    ema: float  # decay of the averaged parameters
    accumulate: int  # micro-batches
    label: Callable = was_masked
    schedule: schedules.Schedule = schedules.COSINE

    def __call__(self, state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        keys = kinds.split_by_kind(key, batch)
        filled = {kind: self.prepare(frozen, batch[kind], keys[kind]) for kind in batch}
        loss_fn = functools.partial(batch_loss, self.critic, frozen["maskgit"])
        loss, metrics, grads = value_and_grad(loss_fn, state.params, filled, key, self.accumulate)
        named = {"loss/total": loss, "grad_norm": optax.tree.norm(grads)}
        named |= kinds.prefixed({kind: logs.over_parts(one) for kind, one in metrics.items()})
        return apply_gradients(state, grads, self.optimizer, ema=self.ema), named

    def prepare(self, frozen, part, key):
        """What the loss needs of a sub-batch: tokens, which are known, which are fake, and text."""
        names = ("mask", "prefix", "sample", "drop_text")
        keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        tokens = self.encode(frozen, part)
        tokens = tokens.reshape(len(tokens), -1)
        known = schedules.sample_prefix(keys["prefix"], tokens.shape, self.per_frame, self.prefix)
        mask = schedules.sample_mask(keys["mask"], tokens.shape, self.schedule, known)
        text = None if self.embed is None else self.embed(frozen, part)
        masked = schedules.apply_mask(tokens, mask, self.generator.mask_id)
        with jax.named_scope("maskgit"):
            logits = self.generator.apply({"params": frozen["maskgit"]}, masked, text)
        drawn = draws.draw(jax.random.split(keys["sample"], len(tokens)), logits)
        sampled = jnp.where(mask, drawn, tokens)
        filled = {"tokens": sampled, "known": known, "fake": self.label(mask, sampled, tokens)}
        if self.critic.reads_text and text is not None:
            keep = schedules.keep_text(keys["drop_text"], len(tokens), self.drop_text)
            filled["text"] = text.dropped(keep)
        return jax.lax.stop_gradient(filled)


def batch_loss(critic, trunk, params, batch, key):
    """(loss, metrics by kind) of a micro-batch; `trunk` are the generator's parameters."""
    params = critic.merge_params(params, trunk)
    keys = kinds.split_by_kind(key, batch)
    out = {kind: kind_loss(critic, params, batch[kind], keys[kind]) for kind in batch}
    rows = {kind: len(part["tokens"]) for kind, part in batch.items()}
    return kinds.weighted_mean({kind: one["loss"] for kind, one in out.items()}, rows), out


@jax.named_scope("critic")
def kind_loss(critic, params, part, key):
    """Metrics of one kind; "loss" is the mean cross-entropy over tokens that are not known."""
    logits = critic.apply(
        {"params": params},
        part["tokens"],
        part.get("text"),
        deterministic=False,
        rngs={"dropout": key},
    )
    fake, counted = part["fake"], ~part["known"]
    errors = masked_tokens.binary_cross_entropy(logits, fake)
    right = (logits > 0) == fake
    return {
        "loss": masked_tokens.masked_mean(errors, counted).mean(),
        "accuracy/fake": logs.Ratio((right & fake).sum(), fake.sum()),
        "accuracy/real": logs.Ratio((right & ~fake & counted).sum(), (~fake & counted).sum()),
        "fake": masked_tokens.masked_mean(fake, counted).mean(),
    }


def make_stage(config: ConfigDict, frozen: dict[str, Any]) -> Stage:
    """The critic and its step; `config` has its generator's sizes.

    `frozen` has the parameters "tokenizer", "maskgit" and, where captions are encoded in the step,
    "text".
    """
    critic, text, optim = factory.critic(config), config.text, OptimOptions(**config.optim)
    spec = factory.video_spec(config)
    step = CriticStep(
        critic,
        factory.maskgit(config),
        make_optimizer(optim),
        encode=functools.partial(inputs.tokens, factory.tokenizer(config)),
        embed=functools.partial(inputs.text, factory.text_encoder(config)) if text else None,
        per_frame=spec.tokens(1),
        drop_text=config.drop_text,
        prefix=config.prefix,
        ema=optim.ema,
        accumulate=optim.accumulate,
        label=LABELS[config.labels],
        schedule=schedules.SCHEDULES[config.mask.schedule],
    )
    sizes = spec.tokens(), (text.length, text.width) if text else None

    def init(key):
        tokens, captions = inputs.example(*sizes)
        params = critic.init(key, tokens, captions if critic.reads_text else None)["params"]
        # A head on the generator's features has no copy of the generator.
        own = {name: value for name, value in params.items() if name != "trunk"}
        return state.create(own, step.optimizer)

    return Stage(critic, init, step, frozen)


def train(
    config: ConfigDict,
    generator: PathLike,
    workdir: PathLike,
    devices=None,
    observe: Observe = NOTHING,
) -> TrainState:
    """Trains the critic of `config` (configs/critic.py) next to the `generator` of a run or bundle.

    Raises:
        UserError: see `loop.run`; or the config is of another kind.
    """
    fields = migrations.of_kind("critic", config.to_dict())
    workdir = open_workdir(workdir, [("generator", generator)])
    model = pipeline.Phenaki.load(generator)
    theirs = model.config.to_dict()
    load.warn_unfinished(generator, theirs, "critic")
    shared = {name: theirs[name] for name in SHARED if name in theirs}
    data = theirs["data"] | fields["data"]
    config = ConfigDict({**fields, **shared, "data": data, "generator": model.generator})
    text = config.text
    frozen = {name: model.params[name] for name in ("tokenizer", "maskgit")}
    if text and not text.cached:
        frozen["text"] = model.params["text"]
    stage = make_stage(config, frozen)
    encode_captions: inputs.CaptionEncoder = inputs.no_captions
    if text:
        encoder = factory.text_encoder(config) if text.cached else None
        encode_captions = inputs.caption_encoder(
            factory.vocabulary(config), text.vocabulary, encoder, model.params["text"]
        )
    frames = batches.sample_frames(config.data, config.video.frames)
    captions = batches.first(config, samples.SHOWN)[1] if text else [None] * samples.SHOWN
    world = None
    if config.data.source == "moving_shapes" and frames is None:  # an image shows no movement
        world = batches.world(config)

    def sample(current, frozen, index, folder):
        model.params |= frozen
        critic = pipeline.Critic(stage.model, current.ema)
        videos = model.generate(captions, seed=0, frames=frames, critic=critic)
        images = samples.write_samples(folder, f"{index:07d}", videos, captions, model.spec.fps)
        scores = samples.measure_alignment(model, world, config.train.sample_count, critic=critic)
        return images, scores

    open_batches = functools.partial(batches.make, config, encode_captions)
    options = RunOptions.of(config.to_dict())
    return loop.run(
        stage, open_batches, options, workdir, sample=sample, devices=devices, observe=observe
    )
