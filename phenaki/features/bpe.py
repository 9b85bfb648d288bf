"""CLIP's text tokenizer: byte-pair encoding of lower-cased text (arXiv 2103.00020, §2.4)."""

import gzip
import html
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import AnyPath, PathLike

FILE = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_152 - 256 - 2  # the public file holds more than CLIP uses
WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
# A piece is a contraction, a run of letters, a digit, or a run of other characters.
PIECE = re.compile(
    rf"{re.escape(START)}|{re.escape(END)}|'(?:s|t|re|ve|m|ll|d)|[a-z]+|[0-9]|[^ a-z0-9]+"
)
SPACE = re.compile(r"[^\S\x1c-\x1f]+")  # Unicode's spaces; Python's \s has these four more


class BytePairs:
    """Encodes captions as rows of `length` ids with the vocabulary file of CLIP.

    `path` is the file that OpenAI published, compressed or not. Unlike OpenAI's code, this does not
    repair wrongly decoded text or curly quotes (the `ftfy` package there); plain captions give the
    same ids. Raises UserError if the file is missing or has other content.
    """

    def __init__(self, path: PathLike, length: int = 77):
        self.length = length
        merges = _read_merges(paths.path(path))
        self.letters = _byte_letters()
        symbols = [*self.letters.values(), *(letter + WORD_END for letter in self.letters.values())]
        symbols += [first + second for first, second in merges]
        self.ids = {symbol: index for index, symbol in enumerate([*symbols, START, END])}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}

    @property
    def size(self) -> int:
        """Number of ids, 49408 for CLIP's file; the end mark is the largest."""
        return self.ids[END] + 1

    def encode(self, captions: Sequence[str]) -> Int32[np.ndarray, "b l"]:
        """Start mark, the caption cut to fit, end mark, then zeros."""
        if isinstance(captions, str):
            raise TypeError(f"captions must be a list of strings, not the string {captions!r}.")
        rows = np.zeros((len(captions), self.length), np.int32)
        for row, caption in zip(rows, captions, strict=True):
            ids = [self.ids[symbol] for symbol in self.split(caption)][: self.length - 2]
            row[: len(ids) + 2] = [self.ids[START], *ids, self.ids[END]]
        return rows

    def split(self, caption: str) -> list[str]:
        """The byte pairs of a caption; "</w>" ends a word."""
        symbols = []
        for piece in pieces(caption):
            if piece in (START, END):
                symbols.append(piece)
            else:
                symbols += self._merge(
                    [self.letters[byte] for byte in piece.encode("utf-8", "surrogateescape")]
                )
        return symbols

    def _merge(self, word: list[str]) -> list[str]:
        word = [*word[:-1], word[-1] + WORD_END]
        while len(word) > 1:
            pair = min(zip(word, word[1:], strict=False), key=self._rank)
            if pair not in self.ranks:
                break
            word = _joined(word, pair)
        return word

    def _rank(self, pair):
        return self.ranks.get(pair, len(self.ranks))


def pieces(caption: str) -> list[str]:
    """Words, contractions, digits and runs of other characters of the cleaned, lower-cased text."""
    text = html.unescape(html.unescape(unicodedata.normalize("NFC", caption)))
    text = SPACE.sub(" ", text).strip().lower()
    # `re` has no Unicode categories: it matches a copy with an ASCII character of the same category
    # for each other one.
    plain = "".join(_stand_in(character) for character in text)
    return [text[match.start() : match.end()] for match in PIECE.finditer(plain)]


def _stand_in(character: str) -> str:
    """An ASCII character of the same class that is part of no contraction."""
    if character.isascii():
        return character
    return {"L": "x", "N": "0"}.get(unicodedata.category(character)[0], "!")


def _joined(word, pair):
    """`word` with every occurrence of `pair`, from the left, made one symbol."""
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, in the order of the first 256 ids: Latin-1's first."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printed]
    letters = {byte: chr(byte) for byte in printed}
    return letters | {byte: chr(256 + index) for index, byte in enumerate(rest)}


def _read_merges(path: AnyPath) -> list[tuple[str, str]]:
    if not paths.is_file(path):
        raise UserError(
            f"{path}: CLIP's vocabulary is missing; give the path of {FILE}, which is in the "
            "folder clip/ of https://github.com/openai/CLIP."
        )
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not {FILE}: {error}.") from error
    lines = text.split("\n")[1 : 1 + MERGES]  # the first is a title
    merges = []
    for number, line in enumerate(lines, 2):
        pair = line.split()
        if len(pair) == 2:
            merges.append((pair[0], pair[1]))
        elif line:
            raise UserError(f"{path}, line {number}: {line!r} is no pair of symbols, as in {FILE}.")
    return merges
