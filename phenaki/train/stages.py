"""The two stages as calls of the one loop."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from phenaki import pipeline
from phenaki.blocks import sharding
from phenaki.data import batches, tensorflow
from phenaki.errors import UserError, one_of
from phenaki.evaluation import alignment
from phenaki.io import checkpoint, media
from phenaki.losses import gan as adversarial
from phenaki.losses import masked_tokens, perceptual
from phenaki.losses import tokenizer as objective
from phenaki.models import factory
from phenaki.models.maskgit import embed_codes
from phenaki.sampling import schedules
from phenaki.text.cache import CachedText
from phenaki.text.vocabulary import SentencePieceVocabulary
from phenaki.train import loop, maskgit, optim, state
from phenaki.train import tokenizer as step_tokenizer
from phenaki.train.warm_start import warm_start
from phenaki.types import Text

SHOWN = 6  # samples per picture
PROXY = "_proxy"  # marks the terms of untrained feature networks


class Stage(NamedTuple):
    """What the loop is given, and the network."""

    model: Any
    init: Callable  # key -> TrainState
    step: Callable
    frozen: dict
    evaluate: Any = None  # of stage 1, see objective.make_objective


def tokenizer_stage(config: ConfigDict) -> Stage:
    """Stage 1 of `config`, with the networks that its losses need."""
    model = factory.tokenizer(config)
    spec = factory.video_spec(config)
    discriminator = factory.discriminator(config)
    frozen = factory.frozen_features(dict(config.loss), config.features.weights)
    start = checkpoint.load_tokenizer(config.start)[0] if config.start else None
    optimizer = make_optimizer(config)
    adversary = None if discriminator is None else _adversary(config, discriminator)
    terms = _perceptual(config)
    names = {name.removesuffix(PROXY): name for name in terms}
    evaluate = objective.make_objective(
        model,
        weights={names.get(term, term): w for term, w in config.loss.items() if term != "beta"},
        beta=config.loss.beta,
        perceptual=terms,
        adversary=adversary,
    )
    step = step_tokenizer.make_step(
        model,
        optimizer,
        evaluate,
        ema=config.optim.ema,
        accumulate=config.optim.accumulate,
        **config.codebook,
        adversary=adversary,
    )

    def init(key):
        clip = jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
        params = model.init(key, clip)["params"]
        if start is not None:
            params = warm_start(params, start, config.start)
        other = None
        if discriminator is not None:
            other = discriminator.init(jax.random.fold_in(key, 1), clip)["params"]
        averaged = model.code_dim if config.codebook.get("decay") else None
        extra = step_tokenizer.initial_extra(model.codebook, other, adversary, averaged)
        return state.create(params, optimizer, extra)

    return Stage(model, init, step, frozen, evaluate)


def train_tokenizer(config: ConfigDict, workdir: str | Path, devices=None):
    """Stage 1 of `config` (configs/cvivit.py) on `devices` (all); returns the final state."""
    model, init, step, frozen, _ = tokenizer_stage(config)
    if frozen and config.features.weights == "random":
        names = ", ".join(frozen)
        logging.warning("config.features.weights=random: losses by %s teach nothing.", names)
    fps = factory.video_spec(config).fps
    with contextlib.closing(make_batches(config, None)) as made:
        shown = next(made)["video"]["video"][:SHOWN]
    reconstruct = jax.jit(lambda params, video: model.apply({"params": params}, video).video)

    def sample(current, frozen, index, directory):
        del frozen
        pixels = shown.astype(np.float32) / 255
        output = np.clip(sharding.fetch(reconstruct(current.ema, pixels)), 0, 1)
        pairs = np.concatenate([pixels, output], axis=3)
        labels = ["original | reconstruction"] * len(pairs)
        return write_samples(directory, f"{index:07d}", pairs, labels, fps), {}

    return loop.run(
        config,
        workdir,
        init=init,
        step=step,
        frozen=frozen,
        batches=make_batches(config, None),
        sample=sample,
        devices=devices,
    )


def maskgit_stage(config: ConfigDict, frozen: dict) -> Stage:
    """Stage 2 of `config`, which has its tokenizer's sizes (see `with_tokenizer`).

    `frozen` has the parameters "tokenizer" and, where captions are encoded in the step, "text".
    """
    model = factory.maskgit(config)
    optimizer = make_optimizer(config)
    encode, embed = make_encoders(config)
    step = maskgit.make_step(
        model,
        optimizer,
        encode=encode,
        embed=embed,
        drop_text=config.drop_text,
        ema=config.optim.ema,
        accumulate=config.optim.accumulate,
        schedule=one_of("config.mask.schedule", config.mask.schedule, schedules.SCHEDULES),
        weigh=one_of("config.loss.reduction", config.loss.reduction, masked_tokens.REDUCTIONS),
        smoothing=config.loss.smoothing,
    )

    def init(key):
        first = model.init(key, *example(config))["params"]
        if config.code_init:
            known = jnp.asarray(frozen["tokenizer"]["quantizer"]["embedding"])
            table = embed_codes(first["embedding"], known, key, config.code_init)
            first = {**first, "embedding": table}
        return state.create(first, optimizer)

    return Stage(model, init, step, frozen)


def make_encoders(config: ConfigDict) -> tuple[Callable, Callable | None]:
    """encode(frozen, part) -> codes [b t m n] or, as stored, [b n]; embed(frozen, part) -> `Text`.

    The latter is None without captions.
    """
    network = factory.tokenizer(config)

    def encode(frozen, part):
        if "tokens" in part:
            return part["tokens"]
        video = step_tokenizer.pixels(part)
        return network.apply({"params": frozen["tokenizer"]}, video, method="encode")

    if not config.text:
        return encode, None
    encoder = factory.text_encoder(config)

    def embed(frozen, part):
        if "text" in part:
            return Text(part["text"], part["text_ids"] > 0)
        return factory.embed(encoder, frozen["text"], part["text_ids"])

    return encode, embed


def example(config: ConfigDict) -> tuple[jax.Array, Text | None]:
    """Tokens and text of one sample, to make the parameters of stage 2's networks from."""
    tokens = jnp.zeros((1, factory.video_spec(config).tokens()), jnp.int32)
    if not config.text:
        return tokens, None
    size = (1, config.text.length)
    return tokens, Text(jnp.zeros((*size, config.text.width)), jnp.ones(size, bool))


def train_maskgit(config: ConfigDict, tokenizer: str | Path, workdir: str | Path, devices=None):
    """Stage 2 of `config` (configs/maskgit.py) on the codes of the tokenizer of a run or bundle."""
    params, stage1, digest = checkpoint.load_tokenizer(tokenizer)
    config = with_tokenizer(config, stage1, digest)
    spec = factory.video_spec(config)
    frozen = {"tokenizer": params}
    sampler = pipeline.Phenaki(config, {})  # one for all, so that sampling is compiled once
    if config.text:
        factory.vocabulary(config)  # its mistakes first: the encoder may be large
        sampler.params["text"] = factory.text_params(config)
        if not config.text.cached:
            frozen["text"] = sampler.params["text"]
    stage = maskgit_stage(config, frozen)

    captions = batches.captions(config, SHOWN) if config.text else [None] * SHOWN
    directory = Path(workdir) / "tokenizer"
    if not sharding.agreed((directory / "bundle.json").is_file()):
        checkpoint.save_bundle(
            directory, {"tokenizer": params}, stage1, kind="tokenizer", fingerprint=digest
        )

    def sample(current, frozen, index, folder):
        sampler.params |= {**frozen, "maskgit": current.ema}
        videos = sampler.generate(captions, seed=0)
        pictures = write_samples(folder, f"{index:07d}", videos, captions, spec.fps)
        return pictures, measure_alignment(config, sampler)

    return loop.run(
        config,
        workdir,
        init=stage.init,
        step=stage.step,
        frozen=stage.frozen,
        batches=make_batches(config, config.text, sampler.params.get("text")),
        sample=sample,
        devices=devices,
    )


def _adversary(config, discriminator):
    gan = config.gan
    if gan.loss not in adversarial.LOSSES:
        raise UserError(
            f"config.gan.loss={gan.loss!r} must be one of {', '.join(adversarial.LOSSES)}."
        )
    play = adversarial.make_gan_loss(
        lambda params, clips: discriminator.apply({"params": params}, clips),
        adversarial.LOSSES[gan.loss],
        **{name: gan[name] for name in ("frames", "start", "r1", "r1_every", "lecam")},
    )
    # The paper trains it with the tokenizer's own optimiser (B.1.2).
    return objective.Adversary(play, make_optimizer(config), gan.lecam_decay, gan.adaptive_limit)


def _perceptual(config):
    """L_IP and L_VP by name; where their networks are untrained the name says so."""
    terms: dict = {}
    suffix = PROXY if config.features.weights == "random" else ""
    if config.loss.perceptual:
        terms[f"perceptual{suffix}"] = perceptual.image_loss
    if config.loss.video_perceptual:
        taps = tuple(config.features.i3d)

        def video_loss(frozen, real, fake):
            if real.shape[1] == 1:
                return None  # an image has no motion
            return perceptual.video_loss(frozen, real, fake, taps)

        terms[f"video_perceptual{suffix}"] = video_loss
    if config.remat != "none":  # the feature networks' activations outweigh the tokenizer's
        terms = {name: jax.checkpoint(term) for name, term in terms.items()}
    return terms


def with_tokenizer(config: ConfigDict, stage1: ConfigDict, fingerprint: str) -> ConfigDict:
    """Stage 2's config with the sizes of the tokenizer, as its run stores it."""
    sizes = {name: stage1[name].to_dict() for name in ("video", "tokenizer")}
    return ConfigDict({**config.to_dict(), **sizes, "fingerprint": fingerprint})


def make_optimizer(config):
    o = config.optim
    if o.decay is not None and o.decay <= o.warmup:
        raise UserError(
            f"config.optim.decay={o.decay} must be above config.optim.warmup={o.warmup}; "
            f"nearest is {o.warmup + 1}."
        )
    rate = optim.schedule(peak=o.rate, warmup=o.warmup, decay=o.decay)
    return optim.adamw(rate, b1=o.b1, b2=o.b2, weight_decay=o.weight_decay, clip=o.clip)


def make_batches(config, text, text_params=None):
    encode = text_encoder(config, text_params) if text else lambda captions: {}
    return batches.make(config, encode, jax.process_index(), jax.process_count())


def text_encoder(config, params=None):
    """captions -> what the step needs of them: ids, and embeddings where they are cached.

    `params` are the encoder's, where the caller has them already.
    """
    vocabulary = factory.vocabulary(config)
    if isinstance(vocabulary, SentencePieceVocabulary):  # as T5X makes its ids
        theirs = tensorflow.seqio().SentencePieceVocabulary(config.text.vocabulary)
        vocabulary = dataclasses.replace(vocabulary, to_ids=theirs.encode)
    if not config.text.cached:
        return lambda captions: {"text_ids": vocabulary.encode(captions)}
    encoder = factory.text_encoder(config)
    params = jax.device_put(factory.text_params(config) if params is None else params)
    embed = jax.jit(lambda params, ids: factory.embed(encoder, params, ids).embeddings)
    return CachedText(vocabulary, functools.partial(embed, params))


def measure_alignment(config, model, **sampler):
    """Detector scores of moving shapes by name; {} for other data, which have no detector."""
    if config.data.source != "moving_shapes" or not config.train.sample_count:
        return {}
    rows = alignment.measure(model, batches.world(config), config.train.sample_count, **sampler)
    return {
        f"alignment/{row}/{name}": value
        for row, values in rows.items()
        for name, value in values.items()
    }


def write_samples(directory, name, videos, captions, fps):
    picture = media.sheet(list(videos), captions)
    if jax.process_index() == 0:
        directory.mkdir(parents=True, exist_ok=True)
        media.write_mp4(directory / f"{name}.mp4", np.concatenate(list(videos)), fps)
        media.write_png(directory / f"{name}.png", picture)
    return {"samples": picture}
