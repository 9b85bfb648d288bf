"""The two stages as calls of the one loop."""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki import alignment, build, checkpoint, media, pipeline
from phenaki.data import batches
from phenaki.errors import UserError
from phenaki.maskgit import embed_codes
from phenaki.text.cache import CachedText
from phenaki.train import loop, optim, state, step_maskgit, step_tokenizer
from phenaki.types import Text

SHOWN = 6  # samples per picture


def train_tokenizer(config: ConfigDict, workdir: str | Path, devices=None):
    """Stage 1 of `config` (configs/cvivit.py) on `devices` (all); returns the final state."""
    model = build.tokenizer(config)
    spec = build.video_spec(config)
    optimizer = _optimizer(config)
    step = step_tokenizer.make_step(
        model,
        optimizer,
        weights={name: config.loss[name] for name in ("l2", "vq")},
        beta=config.loss.beta,
        ema=config.optim.ema,
        accumulate=config.optim.accumulate,
        **config.codebook,
    )

    def init(key):
        clip = jnp.zeros((1, spec.frames, spec.height, spec.width, 3))
        params = model.init(key, clip)["params"]
        return state.create(params, optimizer, step_tokenizer.initial_extra(model.codebook))

    with contextlib.closing(_batches(config, None)) as made:
        shown = next(made)["video"]["video"][:SHOWN]
    reconstruct = jax.jit(lambda params, video: model.apply({"params": params}, video).video)

    def sample(current, frozen, index, directory):
        del frozen
        pixels = shown.astype(np.float32) / 255
        output = np.clip(reconstruct(current.ema, pixels), 0, 1)
        pairs = np.concatenate([pixels, output], axis=3)
        labels = ["original | reconstruction"] * len(pairs)
        return _write(directory, f"{index:07d}", pairs, labels, spec.fps), {}

    return loop.run(
        config,
        workdir,
        init=init,
        step=step,
        frozen={},
        batches=_batches(config, None),
        sample=sample,
        devices=devices,
    )


def train_maskgit(config: ConfigDict, tokenizer: str | Path, workdir: str | Path, devices=None):
    """Stage 2 of `config` (configs/maskgit.py) on the codes of the tokenizer of a run or bundle."""
    params, stage1, digest = checkpoint.load_tokenizer(tokenizer)
    config = ConfigDict({**config.to_dict(), **_tokenizer_fields(stage1), "fingerprint": digest})
    model = build.maskgit(config)
    network = build.tokenizer(config)
    spec = build.video_spec(config)
    optimizer = _optimizer(config)
    frozen = {"tokenizer": params}
    sampler = pipeline.Phenaki(config, {})  # one for all, so that sampling is compiled once
    embed = None
    text = None
    if config.text:
        encoder = build.text_encoder(config)
        sampler.params["text"] = build.text_params(config)
        if not config.text.cached:
            frozen["text"] = sampler.params["text"]
        text = Text(
            jnp.zeros((1, config.text.length, config.text.width)),
            jnp.ones((1, config.text.length), bool),
        )

        def embed(frozen, part):
            if "text" in part:
                return Text(part["text"], part["text_ids"] > 0)
            return build.embed(encoder, frozen["text"], part["text_ids"])

    def encode(frozen, part):
        video = step_tokenizer.pixels(part)
        return network.apply({"params": frozen["tokenizer"]}, video, method="encode")

    step = step_maskgit.make_step(
        model,
        optimizer,
        encode=encode,
        embed=embed,
        drop_text=config.drop_text,
        ema=config.optim.ema,
        accumulate=config.optim.accumulate,
    )

    def init(key):
        codes = jnp.zeros((1, spec.tokens()), jnp.int32)
        first = model.init(key, codes, text)["params"]
        if config.code_init:
            known = jnp.asarray(params["quantizer"]["embedding"])
            table = embed_codes(first["embedding"], known, key, config.code_init)
            first = {**first, "embedding": table}
        return state.create(first, optimizer)

    captions = batches.captions(config, SHOWN) if config.text else [None] * SHOWN
    directory = Path(workdir) / "tokenizer"
    if not (directory / "bundle.json").is_file():
        checkpoint.save_bundle(
            directory, {"tokenizer": params}, stage1, kind="tokenizer", fingerprint=digest
        )

    def sample(current, frozen, index, folder):
        sampler.params |= {**frozen, "maskgit": current.ema}
        videos = sampler.generate(captions, seed=0)
        pictures = _write(folder, f"{index:07d}", videos, captions, spec.fps)
        return pictures, _alignment(config, sampler)

    return loop.run(
        config,
        workdir,
        init=init,
        step=step,
        frozen=frozen,
        batches=_batches(config, config.text),
        sample=sample,
        devices=devices,
    )


def _tokenizer_fields(stage1):
    return {name: stage1[name].to_dict() for name in ("video", "tokenizer")}


def _optimizer(config):
    o = config.optim
    if o.decay is not None and o.decay <= o.warmup:
        raise UserError(
            f"config.optim.decay={o.decay} must be above config.optim.warmup={o.warmup}; "
            f"nearest is {o.warmup + 1}."
        )
    rate = optim.schedule(peak=o.rate, warmup=o.warmup, decay=o.decay)
    return optim.adamw(rate, b1=o.b1, b2=o.b2, weight_decay=o.weight_decay, clip=o.clip)


def _batches(config, text):
    encode = _text_encoder(config) if text else lambda captions: {}
    return batches.make(config, encode, jax.process_index(), jax.process_count())


def _text_encoder(config):
    """captions -> what the step needs of them: ids, and embeddings where they are cached."""
    vocabulary = build.vocabulary(config)
    if not config.text.cached:
        return lambda captions: {"text_ids": vocabulary.encode(captions)}
    encoder, params = build.text_encoder(config), build.text_params(config)
    embed = jax.jit(lambda ids: build.embed(encoder, params, ids).embeddings)
    return CachedText(vocabulary, embed)


def _alignment(config, sampler):
    """Detector scores of moving shapes by name; {} for other data, which have no detector."""
    if config.data.source != "moving_shapes" or not config.train.sample_count:
        return {}
    rows = alignment.measure(sampler, batches.world(config), config.train.sample_count)
    return {
        f"alignment/{row}/{name}": value
        for row, values in rows.items()
        for name, value in values.items()
    }


def _write(directory, name, videos, captions, fps):
    directory.mkdir(parents=True, exist_ok=True)
    media.write_mp4(directory / f"{name}.mp4", np.concatenate(list(videos)), fps)
    picture = media.sheet(list(videos), captions)
    media.write_png(directory / f"{name}.png", picture)
    return {"samples": picture}
