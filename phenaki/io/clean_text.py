"""The one cleaning of text: captions of a data set, prompts, negative texts and class names."""


def clean(text: str | None) -> str | None:
    """A text as one stripped line of valid UTF-8, its white space collapsed; None if empty."""
    # JSON can escape half of a surrogate pair, and flags that are not UTF-8 arrive as such halves.
    valid = (text or "").encode("utf-8", "replace").decode()
    return " ".join(valid.split()) or None
