"""From configs to networks: the only place that knows both."""

from typing import Any

import jax
import jax.numpy as jnp

from phenaki.errors import UserError
from phenaki.maskgit import MaskGIT
from phenaki.text.t5 import T5Encoder, random_encoder
from phenaki.text.vocabulary import ByteVocabulary
from phenaki.tokenizers.cvivit import CViViT
from phenaki.types import Text, VideoSpec

TOKENIZERS = {"cvivit": CViViT}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def dtype(config):
    """The compute type of `config.dtype`."""
    return _known("config.dtype", config.dtype, DTYPES)


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
    fields = dict(config.tokenizer)
    cls = _known("config.tokenizer.name", fields.pop("name"), TOKENIZERS)
    _heads("config.tokenizer", fields)
    fields["patch"] = spec.patch
    return cls(
        frames=spec.frames,
        size=(spec.height, spec.width),
        dtype=dtype(config),
        remat=config.remat,
        unroll=config.unroll,
        **fields,
    )


def maskgit(config) -> MaskGIT:
    """The MaskGIT of `config.model` over the codes of `config.tokenizer` (sizes as in stage 1)."""
    fields = dict(config.model)
    _heads("config.model", fields)
    if fields["codebook"] != config.tokenizer.codebook:
        raise UserError(
            f"config.model.codebook={fields['codebook']} must be the tokenizer's codebook, "
            f"{config.tokenizer.codebook}."
        )
    text_dim = config.text.width if config.text else None
    return MaskGIT(
        grid=video_spec(config).grid(),
        text_dim=text_dim,
        dtype=dtype(config),
        remat=config.remat,
        unroll=config.unroll,
        **fields,
    )


def _heads(path, fields):
    width, heads = fields["width"], fields["heads"]
    if width % heads:
        nearest = max(round(width / heads), 1) * heads
        raise UserError(
            f"{path}.width={width} must be a multiple of heads={heads}; nearest is {nearest}."
        )


def vocabulary(config) -> ByteVocabulary:
    """What turns captions into ids; `config.text.vocabulary` is "bytes"."""
    _known("config.text.vocabulary", config.text.vocabulary, {"bytes": None})
    return ByteVocabulary(config.text.length)


def text_encoder(config) -> T5Encoder:
    """The frozen text encoder of `config.text`."""
    names = (
        "vocab_size",
        "width",
        "heads",
        "head_dim",
        "layers",
        "mlp_dim",
        "relpos_std",
        "relpos_far",
    )
    return T5Encoder(dtype=dtype(config), **{name: config.text[name] for name in names})


def text_params(config):
    """The encoder's parameters; only random ones exist so far, and they say so."""
    if config.text.weights != "random":
        raise UserError(
            f"config.text.weights={config.text.weights!r}: pre-trained T5 weights cannot be read "
            "yet; 'random' gives a frozen random encoder."
        )
    return random_encoder(config.text.seed, text_encoder(config))


def embed(encoder: T5Encoder, params, ids: jax.Array) -> Text:
    """Encoded captions of ids [b l]; an all-padding row is a sample without caption."""
    embeddings: Any = encoder.apply({"params": params}, ids)
    return Text(embeddings, ids > 0)
