"""Captions as UTF-8 bytes; the ids are those of `seqio.ByteVocabulary` (and so of ByT5)."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32

PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2
SPECIAL_IDS = 3  # the byte with value v has id v + SPECIAL_IDS


@dataclasses.dataclass(frozen=True)
class ByteVocabulary:
    """Turns captions into rows of `length` ids: the bytes, one end mark, then padding.

    A missing or blank caption is a row of padding only: an unconditional sample, not the text "".
    A caption longer than `length - 1` bytes is cut there and keeps its end mark; `is_cut` says
    which ones. ValueError if `length` is below 2, TypeError for one string in place of a list.
    """

    length: int  # in ids, the end mark included

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(
                f"length={self.length} of ByteVocabulary must be at least 2 (a byte, an end mark)."
            )

    @property
    def size(self) -> int:
        """Number of ids, hence rows of an embedding: 3 special ones and 256 bytes."""
        return SPECIAL_IDS + 256

    def encode(self, captions: Sequence[str | None]) -> Int32[np.ndarray, "b l"]:
        """Ids of each caption: 0 padding, 1 end, byte + 3 otherwise."""
        ids = np.full((len(captions), self.length), PAD_ID, np.int32)
        for row, encoded in zip(ids, _encoded(captions), strict=True):
            if encoded:
                kept = encoded[: self.length - 1]
                row[: len(kept)] = np.frombuffer(kept, np.uint8).astype(np.int32) + SPECIAL_IDS
                row[len(kept)] = EOS_ID
        return ids

    def decode(self, ids: Int32[np.ndarray, "b l"]) -> list[str]:
        """The text up to the end mark; special ids and half characters of a cut are dropped."""
        return [_decode(row) for row in np.asarray(ids)]

    def is_cut(self, captions: Sequence[str | None]) -> Bool[np.ndarray, " b"]:
        """True where `encode` loses the end of a caption, so that a script can warn about it."""
        return np.array([len(text) > self.length - 1 for text in _encoded(captions)], bool)


def _encoded(captions: Sequence[str | None]) -> Iterator[bytes]:
    if isinstance(captions, str):
        raise TypeError(f"captions must be a list of strings, not the single string {captions!r}.")
    for caption in captions:
        text = caption if caption and caption.strip() else ""
        # Command-line arguments that are not UTF-8 arrive as lone surrogates: give the bytes back.
        yield text.encode("utf-8", "surrogateescape")


def _decode(row: Int32[np.ndarray, " l"]) -> str:
    ends = np.flatnonzero(row == EOS_ID)
    row = row[: ends[0]] if len(ends) else row
    values = row[(row >= SPECIAL_IDS) & (row < SPECIAL_IDS + 256)] - SPECIAL_IDS
    return values.astype(np.uint8).tobytes().decode("utf-8", errors="ignore")
