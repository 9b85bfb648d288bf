"""Stage 2, training of MaskGIT on a frozen tokenizer's tokens: step, networks and run (§2.2)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from phenaki import pipeline
from phenaki.blocks import sharding
from phenaki.data import batches, token_files
from phenaki.errors import UserError
from phenaki.io import checkpoint, migrations, outputs
from phenaki.io.paths import PathLike
from phenaki.losses import masked_tokens
from phenaki.models import factory, load
from phenaki.models.maskgit import embed_codes
from phenaki.sampling import orders, schedules
from phenaki.train import (
    encode_dataset,
    inputs,
    kinds,
    logs,
    loop,
    own_sampler,
    samples,
    state,
    tokenizer_copy,
)
from phenaki.train.optim import OptimOptions, make_optimizer, value_and_grad
from phenaki.train.profiler import NOTHING, Observe
from phenaki.train.stage import RunOptions, Stage
from phenaki.train.state import TrainState, apply_gradients
from phenaki.train.warm_start import same_shapes
from phenaki.train.workdir import claim, inputs_of, open_workdir
from phenaki.types import Text


@dataclasses.dataclass(frozen=True, eq=False)
class MaskGITStep:
    """One training step: step(state, frozen, batch, key) -> (state, metrics).

    Masks and dropped captions are sampled for the whole batch: micro-batches change neither them
    nor the loss. Clips and images, of one frame's tokens, pass the network together.
    """

    model: Any
    optimizer: optax.GradientTransformation
    encode: Callable  # (frozen, sub-batch) -> tokens [b t m n] or [b s]
    embed: Callable | None  # (frozen, sub-batch) -> Text; None: an unconditional model
    drop_text: float  # fraction of samples trained without text, for guidance (§2.2)
    ema: float  # decay of the averaged parameters
    accumulate: int  # micro-batches
    schedule: schedules.Schedule = schedules.COSINE
    weigh: Callable = masked_tokens.weight_samples  # one of masked_tokens.REDUCTIONS
    smoothing: float = 0.0  # of labels
    per_frame: int = 1  # tokens of a latent frame
    prefix: float = 0.0  # fraction of clips whose first latent frames are never masked
    ranks: Callable | None = None  # (key, known) -> those of `schedules.sample_mask`

    def __call__(self, state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        keys = kinds.split_by_kind(key, batch)
        texts = inputs.texts(self.embed, frozen, batch) if self.embed else {}
        prepared = {
            kind: self.prepare(frozen, batch[kind], texts.get(kind), keys[kind]) for kind in batch
        }
        masked = {kind: part for kind, (part, _) in prepared.items()}
        weights = self.weigh({kind: part["mask"].sum(-1) for kind, part in masked.items()})
        masked = {kind: part | {"weight": weights[kind]} for kind, part in masked.items()}
        loss_fn = functools.partial(batch_loss, self.model, self.smoothing)
        loss, metrics, grads = value_and_grad(loss_fn, state.params, masked, key, self.accumulate)
        metrics = {
            kind: logs.over_parts(values) | prepared[kind][1] for kind, values in metrics.items()
        }
        named = {"loss/total": loss, "grad_norm": optax.tree.norm(grads)}
        named |= kinds.prefixed(metrics)
        return apply_gradients(state, grads, self.optimizer, ema=self.ema), named

    def prepare(self, frozen, part, text: Text | None, key):
        """(what the loss needs of a sub-batch: tokens, mask and text; metrics of the text)."""
        # The third key is that of dropout: see `batch_loss`.
        mask_key, text_key, _ = jax.random.split(key, 3)
        tokens = self.encode(frozen, part)
        tokens = tokens.reshape(len(tokens), -1)
        prefix_key = jax.random.fold_in(mask_key, 1)
        known = schedules.sample_prefix(prefix_key, tokens.shape, self.per_frame, self.prefix)
        ranks = self.ranks and self.ranks(jax.random.fold_in(mask_key, 2), known)
        mask = schedules.sample_mask(mask_key, tokens.shape, self.schedule, known, ranks)
        masked, metrics = {"tokens": tokens, "mask": mask}, {}
        if text is not None:
            keep = schedules.keep_text(text_key, len(tokens), self.drop_text)
            masked["text"] = text.dropped(keep)
            metrics["unconditional"] = 1 - masked["text"].mask.any(-1).mean()
            captioned = text.mask.any(-1)
            metrics["dropped"] = logs.Ratio((captioned & ~keep).sum(), captioned.sum())
        return jax.lax.stop_gradient(masked), metrics


@jax.named_scope("maskgit")
def batch_loss(model, smoothing: float, params, batch, key):
    """(loss, metrics by kind) of a micro-batch of masked tokens."""
    masked = {}
    for kind, part in batch.items():
        tokens, mask = part["tokens"], part["mask"]
        masked[kind] = schedules.apply_mask(tokens, mask, model.mask_id)
    texts = {kind: part["text"] for kind, part in batch.items() if "text" in part}
    # One pass, for which the key of the first kind serves.
    dropout = jax.random.split(kinds.split_by_kind(key, batch)[min(batch)], 3)[2]
    logits = model.apply(
        {"params": params}, masked, texts or None, deterministic=False, rngs={"dropout": dropout}
    )
    out = {kind: kind_loss(logits[kind], smoothing, part) for kind, part in batch.items()}
    rows = {kind: len(part["tokens"]) for kind, part in batch.items()}
    loss = kinds.weighted_mean({kind: value for kind, (value, _) in out.items()}, rows)
    return loss, {kind: metrics for kind, (_, metrics) in out.items()}


def kind_loss(logits, smoothing: float, part):
    """(loss, metrics) of one kind: equation 3, also by tenths of the masked fraction."""
    tokens, mask = part["tokens"], part["mask"]
    loss, accuracy = masked_tokens.masked_cross_entropy(logits, tokens, mask, smoothing)
    ever = jnp.zeros(logits.shape[-1], bool).at[logits.argmax(-1)].max(mask)
    metrics: dict[str, Any] = {
        "loss": loss.mean(),
        "accuracy": accuracy.mean(),
        "entropy": masked_tokens.masked_entropy(jax.lax.stop_gradient(logits), mask).mean(),
        "predicted": logs.UsedTokens(ever, mask.sum()),
    }
    tenth = jax.nn.one_hot(schedules.decile(mask), 10)
    for name, values in (("loss", loss), ("accuracy", accuracy)):
        for index, (total, count) in enumerate(zip(values @ tenth, tenth.sum(0), strict=True)):
            metrics[f"{name}/masked_{10 * index}"] = logs.Ratio(total, count)
    return (part["weight"] * loss).mean(), metrics


def with_tokenizer(config: ConfigDict, stage1: ConfigDict, fingerprint: str) -> ConfigDict:
    """Stage 2's `config` with the tokenizer's sizes and fingerprint, as its run stores it."""
    fields = migrations.of_kind("maskgit", config.to_dict())
    sizes = {name: stage1[name].to_dict() for name in ("video", "tokenizer")}
    return ConfigDict({**fields, **sizes, "fingerprint": fingerprint})


def make_stage(config: ConfigDict, frozen: dict[str, Any], start: Any = None) -> Stage:
    """The network and the step of stage 2; `config` has its tokenizer's sizes.

    `frozen` has the parameters "tokenizer" and, where captions are encoded in the step, "text".
    `start` are the parameters of config.start.
    """
    model, optim = factory.maskgit(config), OptimOptions(**config.optim)
    text, spec = config.text, factory.video_spec(config)
    embed = functools.partial(inputs.text, factory.text_encoder(config)) if text else None
    ranks: Any = None
    if fraction := config.mask.ordered:
        sampled = orders.of_sampler(config.sample, spec.grid())
        ranks = functools.partial(schedules.sample_ranks, orders=sampled, fraction=fraction)
    step = MaskGITStep(
        model,
        make_optimizer(optim),
        encode=functools.partial(inputs.tokens, factory.tokenizer(config)),
        embed=embed,
        drop_text=config.drop_text,
        ema=optim.ema,
        accumulate=optim.accumulate,
        schedule=schedules.SCHEDULES[config.mask.schedule],
        weigh=masked_tokens.REDUCTIONS[config.loss.reduction],
        smoothing=config.loss.smoothing,
        per_frame=spec.tokens(1),
        prefix=config.mask.prefix,
        ranks=ranks,
    )
    sizes = spec.tokens(), (text.length, text.width) if text else None
    if config.code_init and model.width < (least := config.tokenizer.code_dim):
        raise UserError(
            f"config.model.width={model.width} must be at least config.tokenizer.code_dim={least} "
            f"with config.code_init; nearest is {least}."
        )

    def init(key):
        params = model.init(key, *inputs.example(*sizes))["params"]
        if start is not None:
            params = same_shapes(params, start, config.start)
        elif config.code_init:
            known = jnp.asarray(frozen["tokenizer"]["quantizer"]["embedding"])
            table = embed_codes(params["embedding"], known, key, config.code_init)
            params = {**params, "embedding": table}
        return state.create(params, step.optimizer)

    return Stage(model, init, step, frozen)


def start_params(directory: str, workdir: PathLike, tokenizer: str) -> Any:
    """The MaskGIT of `config.start`, a run or a whole model, for tokens of that `tokenizer`.

    None where `config.start` is empty, or the run in `workdir` has a checkpoint.

    Raises:
        UserError: the start has no MaskGIT.
    """
    resumed = sharding.agreed(checkpoint.has_checkpoint(workdir))
    if resumed or not directory:
        return None
    config, params, _ = load.load_model(directory)
    theirs = checkpoint.fingerprint(params["tokenizer"], config.to_dict())
    if theirs != tokenizer:
        logging.warning(
            "config.start=%s: was trained on the tokens of tokenizer %s; this run's is %s.",
            directory, theirs, tokenizer,
        )  # fmt: skip
    return params["maskgit"]


def train(
    config: ConfigDict,
    tokenizer: PathLike,
    workdir: PathLike,
    devices=None,
    observe: Observe = NOTHING,
) -> TrainState:
    """Trains stage 2 of `config` (configs/maskgit.py) on `devices` (all); returns the final state.

    `tokenizer` is the run or bundle of stage 1; `workdir`/tokenizer becomes a copy of it, with
    which the run resumes.

    Raises:
        UserError: see `loop.run`; or the config is of another kind or codebook.
    """
    migrations.of_kind("maskgit", config.to_dict())
    read = [("tokenizer", tokenizer), *inputs_of(config.data, config.start)]
    workdir = open_workdir(workdir, read)
    params, stage1, fingerprint = tokenizer_copy.resolve(tokenizer, workdir)
    config = with_tokenizer(config, stage1, fingerprint)
    options = RunOptions.of(config.to_dict())
    frozen = {"tokenizer": params}
    sampler = pipeline.Phenaki(config, {})  # one for the whole run: sampling compiles once
    own_sampler.check(sampler)
    encode_captions: inputs.CaptionEncoder = inputs.no_captions
    if config.text:
        vocabulary = factory.vocabulary(config)  # before the encoder's parameters, which are large
        sampler.params["text"] = factory.text_params(config)
        encoder = factory.text_encoder(config) if config.text.cached else None
        if encoder is None:
            frozen["text"] = sampler.params["text"]
        encode_captions = inputs.caption_encoder(
            vocabulary, config.text.vocabulary, encoder, sampler.params["text"]
        )
    stage = make_stage(config, frozen, start_params(config.start, workdir, fingerprint))
    count, frames = samples.SHOWN, batches.sample_frames(config.data, config.video.frames)
    captions = batches.first(config, count)[1] if config.text else [None] * count
    moves = config.data.source == "moving_shapes" and frames is None  # an image shows no movement
    world = batches.world(config) if moves else None
    loop.mesh_of(options, devices)  # what is refused leaves no run
    with outputs.claimed("workdir", workdir, "run"):
        claim(workdir, options.stored)
        tokenizer_copy.keep(workdir, params, stage1, fingerprint)

    def sample(current, frozen, index, folder):
        sampler.params |= {**frozen, "maskgit": current.ema}
        videos = sampler.generate(captions, seed=0, frames=frames)
        images = samples.write_samples(folder, f"{index:07d}", videos, captions, sampler.spec.fps)
        return images, samples.measure_alignment(sampler, world, config.train.sample_count)

    open_batches = functools.partial(batches.make, config, encode_captions)
    return loop.run(
        stage, open_batches, options, workdir, sample=sample, devices=devices, observe=observe
    )


def open_encoder(
    config: ConfigDict, tokenizer: PathLike, source: str, output: str, batch: int
) -> encode_dataset.Encoder:
    """The encoder of a stage-2 config with a stage-1 run or bundle.

    Raises:
        UserError: `batch` does not divide over this host's devices; no such tokenizer.
    """
    params, stage1, digest = checkpoint.load_tokenizer(tokenizer)
    config = with_tokenizer(config, stage1, digest)
    devices = jax.local_devices()
    if batch % len(devices):
        nearest = max(round(batch / len(devices)), 1) * len(devices)
        raise UserError(
            f"--batch={batch} must be a multiple of the {len(devices)} devices; nearest is "
            f"{nearest}."
        )
    rows = encode_dataset.split(devices)
    spec, text = factory.video_spec(config), config.text
    network = factory.tokenizer(config)

    def encode(params, video):
        return inputs.tokens(network, {"tokenizer": params}, {"video": video})

    encode_captions: inputs.CaptionEncoder | None = None
    if text:
        encoder, weights = None, None
        if text.cached:
            encoder, weights = factory.text_encoder(config), factory.text_params(config)
        vocabulary = factory.vocabulary(config)
        encode_captions = inputs.caption_encoder(vocabulary, text.vocabulary, encoder, weights)
    return encode_dataset.Encoder(
        tokenizer=tokenizer,
        source=source,
        output=output,
        params=jax.device_put(params, NamedSharding(rows.mesh, PartitionSpec())),
        encode=jax.jit(encode),
        text=encode_captions,
        origin=token_files.Origin.of(digest, spec, text),
        sizes=token_files.Sizes(
            video=spec.tokens(),
            image=spec.tokens(1),
            text=text.length if text else 0,
            width=text.width if text and text.cached else 0,
        ),
        spec=spec,
        codebook=config.tokenizer.codebook,
        batch=batch,
    )
