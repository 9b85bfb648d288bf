"""Types that every part of the package exchanges: videos, tokens, text, and their shapes.

Legend of every shape: b batch, f frames, h w c pixels; t m n latent time, row, column; l text
length, d width, k codebook size.
"""

import dataclasses
import math

import flax.struct
from jaxtyping import Array, Bool, Float, Int

from phenaki.errors import UserError
from phenaki.schema.rules import Number, check

Video = Float[Array, "b f h w c"]  # RGB in [0, 1]; an image has f = 1
Tokens = Int[Array, "b t m n"]  # 0 .. codebook - 1


@flax.struct.dataclass
class Text:
    """Encoded captions. A sample without caption has an all-False mask: it is unconditional."""

    embeddings: Float[Array, "b l d"]
    mask: Bool[Array, "b l"]

    def dropped(self, keep: Bool[Array, " b"]) -> "Text":
        """Removes the captions where `keep` is False (§2.2, for classifier-free guidance)."""
        return dataclasses.replace(self, mask=self.mask & keep[:, None])


@dataclasses.dataclass(frozen=True)
class VideoSpec:
    """Clip and patch sizes. Frames are 1 + n·patch[0]: frame 0 is tokenized alone (§2.1)."""

    frames: int
    height: int
    width: int
    fps: float
    patch: tuple[int, int, int]  # frames, rows, columns

    def __post_init__(self):
        time, *space = self.patch
        if self.frames < 1 or (self.frames - 1) % time:
            raise UserError(
                f"config.video.frames={self.frames} must be 1 + a multiple of "
                f"config.tokenizer.patch[0]={time} (frame 0 is tokenized alone); nearest is "
                f"{self.nearest_frames(self.frames)}."
            )
        for axis, (name, patch) in enumerate(zip(("height", "width"), space, strict=True)):
            pixels = (self.height, self.width)[axis]
            if pixels < patch or pixels % patch:
                raise UserError(
                    f"config.video.{name}={pixels} must be a multiple of config.tokenizer.patch"
                    f"[{axis + 1}]={patch}; nearest is {max(round(pixels / patch), 1) * patch}."
                )

    def nearest_frames(self, frames: int) -> int:
        """The legal clip length at or below `frames`, at least 1."""
        return 1 + max(frames - 1, 0) // self.patch[0] * self.patch[0]

    def covering_frames(self, frames: int) -> int:
        """The shortest legal clip length that has `frames` frames."""
        return 1 + -(-(frames - 1) // self.patch[0]) * self.patch[0]

    def grid(self, frames: int | None = None) -> tuple[int, int, int]:
        """Latent (t, m, n) of a clip of `frames` frames, by default of the longest clip."""
        frames = self.frames if frames is None else frames
        is_float = isinstance(frames, float) and math.isfinite(frames)
        whole = round(frames) if is_float else frames
        check("frames", whole, Number(whole=True))
        time, rows, columns = self.patch
        nearest = min(self.nearest_frames(whole), self.frames)
        if frames != nearest or is_float:
            longer = "; extend and story make longer videos" if frames > self.frames else ""
            raise UserError(
                f"frames={frames} must be 1 + a multiple of {time}, at most {self.frames}; "
                f"nearest is {nearest}{longer}."
            )
        return 1 + (frames - 1) // time, self.height // rows, self.width // columns

    def tokens(self, frames: int | None = None) -> int:
        """Number of tokens of such a clip, e.g. 1536 for 11x128x128 in patches of 2x8x8."""
        time, rows, columns = self.grid(frames)
        return time * rows * columns
