"""Filters of items and clips: NSFW flags, caption length, motion."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from phenaki.data.prepare.items import RawItem
from phenaki.errors import UserError

YES = {"TRUE", "T", "YES", "Y", "UNSAFE"}


@dataclasses.dataclass(frozen=True)
class Filters:
    """What is skipped on purpose; by default only what its source flags as NSFW.

    The flag NSFW is also true, yes, 1, or a probability of at least one half, as sources have it.
    `min_words` and `max_words` bound each caption (no caption has 0 words); `min_motion` is the
    mean change from frame to frame, in levels of 0 to 255, below which a clip counts as
    near-static.
    """

    drop_nsfw: tuple[str, ...] = ("NSFW",)
    min_words: int = 0
    max_words: int | None = None
    min_motion: float = 0.0

    def check(self) -> None:
        """Raises UserError for bounds that nothing can meet."""
        if self.min_words < 0 or (self.max_words is not None and self.max_words < self.min_words):
            raise UserError(
                f"--min_words={self.min_words} --max_words={self.max_words}: must be 0 or more, "
                "the second at least the first."
            )
        if not 0 <= self.min_motion < 255:
            raise UserError(f"--min_motion={self.min_motion:g}: must be 0 to below 255, such as 1.")

    def item(self, item: RawItem) -> str | None:
        """Why an item is skipped before it is decoded, or None."""
        if item.nsfw is not None and self._flagged(item.nsfw):
            return f"nsfw: flagged {item.nsfw}"
        if self.captions(item) or self._fits(0) and not item.captions:
            return None
        counts = [len(caption.split()) for caption in item.captions] or [0]
        if max(counts) < self.min_words:
            return f"caption too short: {max(counts)} words, {self.min_words} needed"
        words = min(count for count in counts if count >= self.min_words)
        return f"caption too long: {words} words, at most {self.max_words}"

    def captions(self, item: RawItem) -> tuple[str, ...]:
        """The captions of an item with enough and not too many words."""
        return tuple(text for text in item.captions if self._fits(len(text.split())))

    def _fits(self, words: int) -> bool:
        return self.min_words <= words and (self.max_words is None or words <= self.max_words)

    def _flagged(self, flag: str) -> bool:
        dropped = {name.strip().upper() for name in self.drop_nsfw}
        flag = flag.strip().upper()
        if flag in dropped or "NSFW" not in dropped:
            return flag in dropped
        try:
            return float(flag) >= 0.5
        except ValueError:
            return flag in YES

    def keeps(self, video: UInt8[np.ndarray, "f h w 3"]) -> bool:
        """Whether a clip moves enough; an image always passes."""
        return len(video) == 1 or not self.min_motion or motion(video) >= self.min_motion


def motion(video: UInt8[np.ndarray, "f h w 3"]) -> float:
    """Mean absolute change from frame to frame in levels of 0 to 255."""
    return float(np.abs(np.diff(video.astype(np.int16), axis=0)).mean())
