"""Inputs of the networks: encoded captions of a batch, pixels, tokens and text of a sub-batch."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phenaki.blocks import sharding
from phenaki.data import tensorflow
from phenaki.models import factory
from phenaki.text.cache import CachedText
from phenaki.text.vocabulary import LabelVocabulary, SentencePieceVocabulary, Vocabulary
from phenaki.types import Text, Video

CaptionEncoder = Callable[[Sequence[str | None]], dict[str, np.ndarray]]


def pixels(part: Mapping[str, Any]) -> Video:
    """The uint8 clips of a sub-batch as float32 in [0, 1]."""
    video = sharding.constrain(part["video"], {0: sharding.BATCH, 2: "sequence"})
    return video.astype(jnp.float32) / 255


def tokens(
    tokenizer, frozen: Mapping[str, Any], part: Mapping[str, Any]
) -> Int[Array, "b t m n"] | Int[Array, "b s"]:
    """Tokens of a sub-batch: those it stores, or those of its clips by the frozen `tokenizer`."""
    if "tokens" in part:
        return part["tokens"]
    with jax.named_scope("tokenizer"):
        params = {"params": frozen["tokenizer"]}
        return tokenizer.apply(params, pixels(part), method="encode")


def text(encoder, frozen: Mapping[str, Any], part: Mapping[str, Any]) -> Text:
    """Captions of a sub-batch: cached embeddings, or those of its ids by the frozen `encoder`."""
    if "text" in part:
        return Text(part["text"], part["text_ids"] > 0)
    with jax.named_scope("text"):
        return factory.embed(encoder, frozen["text"], part["text_ids"])


def texts(
    embed: Callable[[Mapping[str, Any], Mapping[str, Any]], Text],
    frozen: Mapping[str, Any],
    batch: Mapping[str, Mapping[str, Any]],
) -> dict[str, Text]:
    """Captions of all kinds by `embed` (frozen, sub-batch), which is `text` of an encoder.

    They are encoded in one batch, so that the encoder's parameters move once.
    """
    if len(batch) == 1 or any("text" in part for part in batch.values()):
        return {kind: embed(frozen, part) for kind, part in batch.items()}
    ids = [part["text_ids"] for part in batch.values()]
    together = embed(frozen, {"text_ids": sharding.merge_rows(ids)})
    apart = (sharding.split_rows(x, ids) for x in (together.embeddings, together.mask))
    return {kind: Text(*parts) for kind, *parts in zip(batch, *apart, strict=True)}


def no_captions(captions: Sequence[str | None]) -> dict[str, np.ndarray]:
    """The caption encoder of a model without text."""
    del captions
    return {}


def caption_encoder(
    vocabulary: Vocabulary | LabelVocabulary, file: str, encoder=None, params=None
) -> CaptionEncoder:
    """Returns captions -> {"text_ids": int32 [b l]}, on the host.

    With a text `encoder` and its `params` also {"text": float32 [b l d]}, the captions' embeddings,
    cached. `file` is that of a SentencePiece `vocabulary`.
    """
    if isinstance(vocabulary, SentencePieceVocabulary):
        # Training uses the tokenizer that made T5X's own training data.
        processor = tensorflow.seqio().SentencePieceVocabulary(file)
        vocabulary = dataclasses.replace(vocabulary, to_ids=processor.encode)
    if encoder is None:
        return lambda captions: {"text_ids": vocabulary.encode(captions)}
    embed = jax.jit(lambda params, ids: factory.embed(encoder, params, ids).embeddings)
    return CachedText(vocabulary, functools.partial(embed, jax.device_put(params)))


def example(
    length: int, text_size: tuple[int, int] | None
) -> tuple[Int[Array, "1 s"], Text | None]:
    """Tokens [1 `length`] and text of one sample, to initialise the networks of stage 2.

    `text_size` is the text's (length, width), None for a model without text.
    """
    sample = jnp.zeros((1, length), jnp.int32)
    if text_size is None:
        return sample, None
    rows = (1, text_size[0])
    embeddings: Float[Array, "1 l d"] = jnp.zeros((*rows, text_size[1]))
    return sample, Text(embeddings, jnp.ones(rows, bool))
