"""The one cleaning of text: captions of a data set, prompts, negative texts and class names."""

from phenaki.errors import UserError
from phenaki.io import paths


def clean(text: str | None) -> str | None:
    """A text as one stripped line of valid UTF-8, its white space collapsed; None if empty."""
    # JSON can escape half of a surrogate pair, and flags that are not UTF-8 arrive as such halves.
    valid = (text or "").encode("utf-8", "replace").decode()
    return " ".join(valid.split()) or None


def read_lines(path: paths.PathLike) -> list[str]:
    """The cleaned texts of a file, one a line, without empty ones.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        text = paths.path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is not a text file in UTF-8; one text a line is needed."
        ) from None
    return [line for line in map(clean, text.splitlines()) if line]
