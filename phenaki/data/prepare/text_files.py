"""Text as people's files have it: UTF-8, UTF-16 with a byte order mark, or else Latin-1."""

from pathlib import Path

LATIN = "latin-1"
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WIDE = "utf-16"
_USUAL = "utf-8-sig"


def encoding(path: Path) -> str:
    """The encoding of a file, by its byte order mark or by decoding all of it."""
    with path.open("rb") as file:
        if file.read(2) in _MARKS:
            return _WIDE
    try:
        with path.open(encoding=_USUAL) as file:
            while file.read(2**20):
                pass
        return _USUAL
    except UnicodeDecodeError:
        return LATIN


def read(path: Path) -> str:
    """The text of a file."""
    return decoded(path.read_bytes())


def decoded(content: bytes) -> str:
    """The text of a file with that content."""
    try:
        return content.decode(_WIDE if content[:2] in _MARKS else _USUAL)
    except UnicodeDecodeError:
        return content.decode(LATIN)


def head(path: Path, size: int) -> str:
    """The text of the first `size` bytes of a file, which may end within a character."""
    with path.open("rb") as file:
        content = file.read(size)
    return content.decode(_WIDE if content[:2] in _MARKS else _USUAL, errors="replace")
