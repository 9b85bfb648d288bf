"""From configs to networks: the only place that knows both."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from phenaki.blocks import attention_impl
from phenaki.blocks.quantizer import QUANTIZERS
from phenaki.errors import UserError
from phenaki.features import tensor_files, weights
from phenaki.losses import masked_tokens
from phenaki.models.conv3d_vqgan import Conv3DVQGAN
from phenaki.models.conv_vqgan import ConvVQGAN
from phenaki.models.critic import SelfCritic, TokenCritic
from phenaki.models.cvivit import CViViT
from phenaki.models.discriminator import Discriminator, StyleGAN2Discriminator
from phenaki.models.maskgit import MaskGIT
from phenaki.models.vit_vqgan import ViTVQGAN
from phenaki.sampling import schedules
from phenaki.text import weights as text_weights
from phenaki.text.one_hot import OneHot
from phenaki.text.t5 import T5Encoder, random_encoder
from phenaki.text.vocabulary import (
    ByteVocabulary,
    LabelVocabulary,
    Vocabulary,
    labels,
    sentencepiece,
)
from phenaki.types import Text, VideoSpec

PER_FRAME = {"vit_vqgan": ViTVQGAN, "conv_vqgan": ConvVQGAN}
TOKENIZERS = {"cvivit": CViViT, "conv3d_vqgan": Conv3DVQGAN, **PER_FRAME}
DISCRIMINATORS = {"residual": Discriminator, "stylegan2": StyleGAN2Discriminator}
LABELS = "labels"  # of config.text.vocabulary
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def dtype(config):
    """The compute type of `config.dtype`."""
    return _known("config.dtype", config.dtype, DTYPES)


def attention(config) -> str:
    """The kernel of self-attention."""
    name = config.attention
    return _known("config.attention", name, dict.fromkeys(attention_impl.NAMES, name))


def _known(field, value, table):
    if value not in table:
        raise UserError(f"{field}={value!r} must be one of {', '.join(table)}.")
    return table[value]


def video_spec(config) -> VideoSpec:
    """The checked clip and patch sizes of a config."""
    return VideoSpec(**config.video, patch=tuple(config.tokenizer.patch))


def tokenizer(config):
    """The tokenizer network of `config.tokenizer` for clips of `config.video`."""
    spec = video_spec(config)
    # Stored configs have lists where configs have tuples.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.tokenizer.items()}
    fields["patch"] = spec.patch
    name = fields.pop("name")
    quantizer = fields.pop("quantizer", "vq")
    fields["quantizer_type"] = _known("config.tokenizer.quantizer", quantizer, QUANTIZERS)
    cls = _known("config.tokenizer.name", name, TOKENIZERS)
    if "heads" in fields:
        _heads("config.tokenizer", fields)
    _patch(name, fields)
    shared = dict(
        frames=spec.frames,
        size=(spec.height, spec.width),
        dtype=dtype(config),
        remat=config.remat,
        unroll=config.unroll,
        attention=attention(config),
    )
    # What works frame by frame has no number of frames, and a convolution no size.
    known = {field.name for field in dataclasses.fields(cls)}
    return cls(**fields, **{k: v for k, v in shared.items() if k in known})


def _patch(name, fields):
    patch = fields["patch"]
    time, *space = patch
    if name in PER_FRAME and time != 1:
        raise UserError(
            f"config.tokenizer.patch[0]={time} must be 1: {name} makes codes of each frame alone."
        )
    strides = fields.get("strides")
    if strides is not None and space != [math.prod(strides)] * 2:
        raise UserError(
            f"config.tokenizer.patch={patch} must have the product of config.tokenizer.strides="
            f"{strides} as rows and columns; nearest is {(time, *[math.prod(strides)] * 2)}."
        )


def discriminator(config):
    """The discriminator of `config.gan`, None where `config.loss.adversarial` is 0."""
    if not config.loss.adversarial:
        return None
    return _known("config.gan.network", config.gan.network, DISCRIMINATORS)(config.gan.width)


def frozen_features(config) -> dict[str, Any]:
    """Parameters by name of the feature networks that the losses of `config.loss` need.

    `config.features.weights` is the directory of converted files, or "random".
    """
    names: list[str] = []
    if config.loss.perceptual:
        names += ["vgg16", "lpips_vgg"]
    if config.loss.video_perceptual:
        names += ["i3d"]
    if config.features.weights == "random":
        return {name: weights.random(name, seed=0) for name in names}
    return {name: weights.load(name, config.features.weights) for name in names}


def maskgit(config) -> MaskGIT:
    """The MaskGIT of `config.model` over the codes of `config.tokenizer` (sizes as in stage 1)."""
    fields = dict(config.model)
    _heads("config.model", fields)
    if fields["codebook"] != config.tokenizer.codebook:
        raise UserError(
            f"config.model.codebook={fields['codebook']} must be the tokenizer's codebook, "
            f"{config.tokenizer.codebook}."
        )
    return MaskGIT(text_dim=config.text.width if config.text else None, **fields, **_common(config))


def mask_schedule(config) -> schedules.Schedule:
    """How many codes a training sample hides: `config.mask.schedule`."""
    return _known("config.mask.schedule", config.mask.schedule, schedules.SCHEDULES)


def reduction(config):
    """How samples weigh in stage 2's loss: `config.loss.reduction`."""
    return _known("config.loss.reduction", config.loss.reduction, masked_tokens.REDUCTIONS)


def critic(config) -> TokenCritic | SelfCritic:
    """The token critic of `config.critic` for the codes and the MaskGIT of `config.model`."""
    fields = dict(config.critic)
    head = _known("config.critic.kind", fields.pop("kind"), {"network": False, "head": True})
    reads_text = fields.pop("text") and bool(config.text)
    if head:
        return SelfCritic(maskgit(config), fields["width"], reads_text, dtype(config))
    _heads("config.critic", fields)
    return TokenCritic(
        codebook=config.tokenizer.codebook,
        text_dim=config.text.width if reads_text else None,
        **fields,
        **_common(config),
    )


def _common(config):
    """What every transformer over codes takes from the rest of `config`."""
    return dict(
        grid=video_spec(config).grid(),
        dtype=dtype(config),
        remat=config.remat,
        unroll=config.unroll,
        attention=attention(config),
    )


def _heads(path, fields):
    width, heads = fields["width"], fields["heads"]
    if width % heads:
        nearest = max(round(width / heads), 1) * heads
        raise UserError(
            f"{path}.width={width} must be a multiple of heads={heads}; nearest is {nearest}."
        )


def vocabulary(config) -> Vocabulary | LabelVocabulary:
    """What turns captions into ids, by `config.text.vocabulary`.

    "bytes"; a SentencePiece .model; or "labels:FILE", whose lines are the names of classes.
    """
    text = config.text
    kind, _, file = text.vocabulary.partition(":")
    if kind == LABELS:
        names = labels(file)
        for field, rule, size in (
            ("length", "1: a caption is one class", names.length),
            ("width", f"the number of names in {file}", len(names.names)),
        ):
            if text[field] != size:
                raise UserError(
                    f"config.text.{field}={text[field]} must be {rule}; nearest is {size}."
                )
        return names
    if text.length < 2:
        raise UserError(
            f"config.text.length={text.length} must be at least 2, for a piece and an end mark."
        )
    if text.vocabulary == "bytes":
        ids: Vocabulary = ByteVocabulary(text.length)
    elif text.vocabulary.endswith(".model"):
        ids = sentencepiece(text.vocabulary, text.length)
    else:
        raise UserError(
            f"config.text.vocabulary={text.vocabulary!r} must be 'bytes', a SentencePiece .model "
            f"file, or {LABELS}:FILE with a name a line."
        )
    if ids.size > text.vocab_size:
        raise UserError(
            f"config.text.vocab_size={text.vocab_size} must be at least {ids.size}, the number of "
            f"ids of config.text.vocabulary={text.vocabulary!r}."
        )
    return ids


def text_encoder(config) -> T5Encoder | OneHot:
    """The frozen text encoder of `config.text`."""
    if config.text.vocabulary.startswith(f"{LABELS}:"):
        return OneHot(config.text.width, dtype(config))
    # Beside the config's it has the fields of every Flax module.
    names = {field.name for field in dataclasses.fields(T5Encoder)} & set(config.text)
    return T5Encoder(dtype=dtype(config), **{name: config.text[name] for name in names})


def text_params(config):
    """The encoder's parameters: `config.text.weights` is a checkpoint, or "random"."""
    encoder = text_encoder(config)
    if isinstance(encoder, OneHot):
        return {}
    if config.text.weights == "random":
        return random_encoder(config.text.seed, encoder)
    return text_weights.load(config.text.weights, encoder, tensor_files.read)


def embed(encoder: T5Encoder | OneHot, params, ids: jax.Array) -> Text:
    """Encoded captions of ids [b l]; an all-padding row is a sample without caption."""
    embeddings: Any = encoder.apply({"params": params}, ids)
    return Text(embeddings, ids > 0)
