"""Vocabularies, captions to ids: UTF-8 bytes, T5's SentencePiece pieces, or class names."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from phenaki.errors import UserError, did_you_mean
from phenaki.io import paths
from phenaki.io.clean_text import clean, read_lines
from phenaki.io.paths import PathLike

PAD_ID, EOS_ID, UNKNOWN_ID = 0, 1, 2
SPECIAL_IDS = 3  # the byte with value v has id v + SPECIAL_IDS
SOURCE = (
    "get gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model, which is also the "
    "spiece.model of T5 v1.1 at Hugging Face"
)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Encodes captions as rows of `length` ids: pieces of text, one end mark, then padding.

    Captions and prompts are cleaned alike (`phenaki.io.clean_text`).
    A missing or blank caption is a row of padding: an unconditional sample, not the text "". A
    caption longer than `length - 1` pieces is cut there and keeps its end mark; `is_cut` tells
    which ones. Raises ValueError if `length` is below 2, TypeError for a string instead of a list.
    """

    length: int  # in ids, the end mark included

    def __post_init__(self):
        if self.length < 2:
            raise ValueError(
                f"length={self.length} of {type(self).__name__} must be at least 2 (a piece, an "
                "end mark)."
            )

    @property
    def size(self) -> int:
        """Number of ids, and of rows that an embedding needs."""
        raise NotImplementedError

    def _ids(self, text: str) -> Sequence[int] | np.ndarray:
        raise NotImplementedError

    def _text(self, ids: np.ndarray) -> str:
        raise NotImplementedError

    def count(self, caption: str) -> int:
        """Number of ids of the whole caption, the end mark included."""
        return len(self._ids(clean(caption) or "")) + 1

    def encode(self, captions: Sequence[str | None]) -> Int32[np.ndarray, "b l"]:
        """Ids of each caption: 0 padding, 1 end, pieces otherwise."""
        ids = np.full((len(captions), self.length), PAD_ID, np.int32)
        for row, pieces in zip(ids, map(self._ids, _texts(captions)), strict=True):
            if len(pieces):
                kept = pieces[: self.length - 1]
                row[: len(kept)] = kept
                row[len(kept)] = EOS_ID
        return ids

    def decode(self, ids: Int32[np.ndarray, "b l"]) -> list[str]:
        """The text up to the end mark; special ids and half characters of a cut are dropped."""
        return [self._text(row[: np.argmax(row == EOS_ID)]) for row in _ended(ids)]

    def is_cut(self, captions: Sequence[str | None]) -> Bool[np.ndarray, " b"]:
        """True where `encode` cuts a caption, so that a script can warn about it."""
        return np.array([len(self._ids(t)) > self.length - 1 for t in _texts(captions)], bool)


class ByteVocabulary(Vocabulary):
    """UTF-8 bytes; the ids are those of `seqio.ByteVocabulary` (and so of ByT5)."""

    @property
    def size(self) -> int:
        return SPECIAL_IDS + 256

    def _ids(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + SPECIAL_IDS

    def _text(self, ids: np.ndarray) -> str:
        values = ids[(ids >= SPECIAL_IDS) & (ids < self.size)] - SPECIAL_IDS
        return values.astype(np.uint8).tobytes().decode("utf-8", errors="ignore")


@dataclasses.dataclass(frozen=True)
class SentencePieceVocabulary(Vocabulary):
    """The pieces of a SentencePiece `model` (see `sentencepiece`), with T5's ids.

    `to_ids` returns a text's ids without the end mark; any tokenizer of the same model may do so.
    """

    model: Any
    to_ids: Callable[[str], list[int]]

    @property
    def size(self) -> int:
        return self.model.vocab_size()

    def _ids(self, text: str) -> list[int]:
        return self.to_ids(text)

    def _text(self, ids: np.ndarray) -> str:
        return self.model.decode(ids[ids != PAD_ID].tolist())


def sentencepiece(path: PathLike, length: int) -> SentencePieceVocabulary:
    """The vocabulary of a SentencePiece `.model` file.

    Raises UserError for a missing file, other content, or special ids that are not T5's.
    """
    from sentencepiece import SentencePieceProcessor

    if not paths.is_file(path):
        raise UserError(f"{path}: no such vocabulary; {SOURCE}.")
    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(paths.path(path).read_bytes())
    except RuntimeError:
        raise UserError(f"{path}: is no SentencePiece model, or is cut short; {SOURCE}.") from None
    marks = dict(pad=model.pad_id(), end=model.eos_id(), unknown=model.unk_id())
    if tuple(marks.values()) != (PAD_ID, EOS_ID, UNKNOWN_ID):
        raise UserError(
            f"{path}: is not a vocabulary as T5's: its special ids are {marks}; they must "
            f"be {PAD_ID}, {EOS_ID}, {UNKNOWN_ID}."
        )
    return SentencePieceVocabulary(length, model, model.encode)


@dataclasses.dataclass(frozen=True)
class LabelVocabulary:
    """Captions that are class names: rows of one id, from 1 on in the order of `names`.

    A missing or blank caption has id 0: an unconditional sample. Raises UserError for an unknown
    name.
    """

    names: tuple[str, ...]
    path: str  # of the file that they come from, for errors

    @property
    def length(self) -> int:
        """Ids per caption."""
        return 1

    @property
    def size(self) -> int:
        """Number of ids: the names and "no class"."""
        return 1 + len(self.names)

    def encode(self, captions: Sequence[str | None]) -> Int32[np.ndarray, "b 1"]:
        """The id of each caption's class."""
        return np.array([[self._id(name)] for name in _texts(captions)], np.int32)

    def decode(self, ids: Int32[np.ndarray, "b 1"]) -> list[str]:
        """The names; "" for no class."""
        return ["" if row[0] == PAD_ID else self.names[row[0] - 1] for row in ids]

    def is_cut(self, captions: Sequence[str | None]) -> Bool[np.ndarray, " b"]:
        """False: a name is never cut."""
        return np.zeros(len(captions), bool)

    def _id(self, name: str) -> int:
        if not name:
            return PAD_ID
        if name not in self.names:
            hint = did_you_mean(name, self.names) or "."
            raise UserError(f"caption {name!r} must be a class name of {self.path}{hint}")
        return 1 + self.names.index(name)


def labels(path: PathLike) -> LabelVocabulary:
    """The class names of a text file, one a line.

    Raises:
        UserError: there are none, one repeats, or the file is not UTF-8.
    """
    if not paths.is_file(path):
        raise UserError(f"{path}: no such file of class names, one a line.")
    names = tuple(read_lines(path))
    if not names:
        raise UserError(f"{path}: holds no class names; one a line is needed.")
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(f"{path}: names {name!r} twice; every class needs a name of its own.")
    return LabelVocabulary(names, str(path))


def _texts(captions: Sequence[str | None]) -> Iterator[str]:
    if isinstance(captions, str):
        raise TypeError(f"captions must be a list of strings, not the single string {captions!r}.")
    for caption in captions:
        yield clean(caption) or ""


def _ended(ids: np.ndarray) -> np.ndarray:
    """Rows with an end mark appended, so that a full one has an end, too."""
    return np.pad(np.asarray(ids), ((0, 0), (0, 1)), constant_values=EOS_ID)
