"""Subtitles of a story: its prompts, each for the time of its scene."""

from collections.abc import Sequence


def srt(texts: Sequence[str | None], parts: Sequence[tuple[int, int]], fps: float) -> str:
    """A SubRip file of the `texts` shown in the frames `parts` (first, end); None is silence."""
    entries: list[str] = []
    for text, (start, end) in zip(texts, parts, strict=True):
        if text:
            # A blank line would end the entry.
            line = " ".join(text.split())
            times = f"{_time(start / fps)} --> {_time(end / fps)}"
            entries.append(f"{len(entries) + 1}\n{times}\n{line}\n")
    return "\n".join(entries)


def _time(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{thousandths:03d}"
