"""Networks from configs: what `config.tokenizer`, `.model`, `.critic`, `.gan` and `.text` describe.

Each function reads one section and returns the network or values it stands for; networks themselves
take values, never a config. Readers of weight files, feature networks and discriminators are
imported where they are needed: a MaskGIT that trains on random text features loads none of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from phenaki.blocks.quantizer import QUANTIZERS
from phenaki.errors import UserError
from phenaki.models.conv3d_vqgan import Conv3DVQGAN
from phenaki.models.conv_vqgan import ConvVQGAN
from phenaki.models.critic import SelfCritic, TokenCritic
from phenaki.models.cvivit import CViViT
from phenaki.models.maskgit import MaskGIT
from phenaki.models.tokenizer import Tokenizer
from phenaki.models.vit_vqgan import ViTVQGAN
from phenaki.sampling.options import Defaults
from phenaki.schema import sizes
from phenaki.schema.check import check
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

if TYPE_CHECKING:
    from phenaki.models.discriminator import Discriminator, StyleGAN2Discriminator

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "cvivit": CViViT,
    "vit_vqgan": ViTVQGAN,
    "conv_vqgan": ConvVQGAN,
    "conv3d_vqgan": Conv3DVQGAN,
}
LABELS = "labels"  # prefix of config.text.vocabulary
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def dtype(name: str) -> Any:
    """The compute type that `config.dtype` names; parameters are float32 whatever it is."""
    return DTYPES[name]


def _compute(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of every transformer that say how it computes, not what."""
    names = ("remat", "unroll", "attention")
    return {name: fields[name] for name in names} | {"dtype": dtype(fields["dtype"])}


def video_spec(config: ConfigDict) -> VideoSpec:
    """The clip sizes of `config.video` and the patch sizes of `config.tokenizer`.

    Raises:
        UserError: a value of the config cannot be meant (`phenaki.schema`), or sizes do not fit.
    """
    check(config.to_dict())
    return VideoSpec(**config.video, patch=tuple(config.tokenizer.patch))


def tokenizer(config: ConfigDict) -> Tokenizer:
    """The tokenizer network of `config.tokenizer` for clips of `config.video`.

    Raises:
        UserError: see `video_spec`; or sizes of the network do not fit each other.
    """
    spec = video_spec(config)
    sizes.check_tokenizer(config.tokenizer.to_dict())
    # Stored configs have lists where configs have tuples.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.tokenizer.items()}
    fields["patch"] = spec.patch
    name: Any = fields.pop("name")
    quantizer: Any = fields.pop("quantizer", "vq")
    fields["quantizer_type"] = QUANTIZERS[quantizer]
    network: Any = TOKENIZERS[name]
    shared = dict(frames=spec.frames, size=(spec.height, spec.width), **_compute(config.to_dict()))
    # A network takes what it has a field for: one that works frame by frame has no `frames`, a
    # convolution no `size`.
    known = {field.name for field in dataclasses.fields(network)}
    return network(**fields, **{k: v for k, v in shared.items() if k in known})


def discriminator(network: str, width: int) -> "Discriminator | StyleGAN2Discriminator":
    """The discriminator of `config.gan`: its kind and the channels of its maps up to 32 px."""
    from phenaki.models.discriminator import DISCRIMINATORS

    return DISCRIMINATORS[network](width)


def frozen_features(loss: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Parameters by name of the feature networks that the losses need.

    `loss` is `config.loss`, weights by term. `directory` is `config.features.weights`: a directory
    of converted files, or "random" for untrained networks.
    """
    from phenaki.features import weights

    names: list[str] = []
    if loss["perceptual"]:
        names += ["vgg16", "lpips_vgg"]
    if loss["video_perceptual"]:
        names += ["i3d"]
    if directory == "random":
        return {name: weights.random(name, seed=0) for name in names}
    return {name: weights.load(name, directory) for name in names}


def layer_by_layer(network: Any) -> Any:
    """The same network with its scan over the layers not unrolled: for sampling.

    Sampling compiles the network once for each view, in much less time so, and is no slower.
    `config.unroll` is for training steps.
    """
    return network.clone(unroll=1) if hasattr(network, "unroll") else network


def maskgit(config: ConfigDict) -> MaskGIT:
    """The MaskGIT of `config.model` over the tokens of `config.tokenizer`."""
    fields = dict(config.model)
    sizes.check_heads("config.model", fields)
    if fields["codebook"] != config.tokenizer.codebook:
        raise UserError(
            f"config.model.codebook={fields['codebook']} must be the tokenizer's codebook, "
            f"{config.tokenizer.codebook}."
        )
    return MaskGIT(
        text_dim=config.text.width if config.text else None,
        grid=video_spec(config).grid(),
        **fields,
        **_compute(config.to_dict()),
    )


def critic(config: ConfigDict) -> TokenCritic | SelfCritic:
    """The token critic of `config.critic` for the tokens and the MaskGIT of `config.model`."""
    fields = dict(config.critic)
    head = fields.pop("kind") == "head"
    reads_text = fields.pop("text") and bool(config.text)
    if head:
        return SelfCritic(maskgit(config), fields["width"], reads_text, dtype(config.dtype))
    sizes.check_heads("config.critic", fields)
    return TokenCritic(
        codebook=config.tokenizer.codebook,
        text_dim=config.text.width if reads_text else None,
        grid=video_spec(config).grid(),
        **fields,
        **_compute(config.to_dict()),
    )


def vocabulary(config: ConfigDict) -> Vocabulary | LabelVocabulary:
    """The vocabulary that turns captions into ids, by `config.text.vocabulary`.

    "bytes"; a SentencePiece .model; or "labels:FILE", whose lines are the names of classes.

    Raises:
        UserError: no such vocabulary, or `config.text` has other sizes than it.
    """
    text = config.text
    kind, _, file = text.vocabulary.partition(":")
    if kind == LABELS:
        return _label_vocabulary(text, file)
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


def _label_vocabulary(text, file):
    names = labels(file)
    for field, rule, size in (
        ("length", "1: a caption is one class", names.length),
        ("width", f"the number of names in {file}", len(names.names)),
    ):
        if text[field] != size:
            raise UserError(f"config.text.{field}={text[field]} must be {rule}; nearest is {size}.")
    return names


def text_encoder(config: ConfigDict) -> T5Encoder | OneHot:
    """The frozen text encoder of `config.text`."""
    if config.text.vocabulary.startswith(f"{LABELS}:"):
        return OneHot(config.text.width, dtype(config.dtype))
    # Flax adds fields of its own to those that the config has.
    names = {field.name for field in dataclasses.fields(T5Encoder)} & set(config.text)
    return T5Encoder(dtype=dtype(config.dtype), **{name: config.text[name] for name in names})


def text_params(config: ConfigDict) -> dict[str, Any]:
    """The encoder's parameters: `config.text.weights` is a checkpoint, or "random".

    Raises:
        UserError: the checkpoint is missing, damaged, or of another model.
    """
    encoder = text_encoder(config)
    if isinstance(encoder, OneHot):
        return {}
    if config.text.weights == "random":
        return random_encoder(config.text.seed, encoder)
    from phenaki.features import tensor_files
    from phenaki.text import weights

    return weights.load(config.text.weights, encoder, tensor_files.read)


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
    """What sampling takes from a config besides the networks."""

    context: int  # K, on how many frames the next window of a video is conditioned
    codebook: int  # number of codes
    defaults: Defaults
    vocabulary: str | None  # `config.text.vocabulary`, None for a model without text
    text_length: int  # ids per caption, 0 without text


def sampling_settings(config: ConfigDict) -> SamplingSettings:
    """Those of a stage-2 config."""
    text, presets = config.text, config.get("presets", ConfigDict())
    return SamplingSettings(
        context=config.sample.context,
        codebook=config.tokenizer.codebook,
        defaults=Defaults(config.sample.to_dict(), presets.to_dict()),
        vocabulary=text.vocabulary if text else None,
        text_length=text.length if text else 0,
    )


def embed(encoder: T5Encoder | OneHot, params: Mapping[str, Any], ids: jax.Array) -> Text:
    """Encoded captions of ids [b l]; an all-padding row is a sample without caption."""
    embeddings: Any = encoder.apply({"params": params}, ids)
    return Text(embeddings, ids > 0)
