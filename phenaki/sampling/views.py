"""What of a clip the passes of a step see; the paper's see all of it.

With `view="begun"` a step's pass leaves out the latent frames that are masks alone and stay so: it
sees those in which a token is known, or is decoded by the end of the step. The others would tell
it nothing but that they are masks. Needs an order that does not depend on what is sampled. Not in
the paper: see docs/sampling.md#begun.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

CLIP, BEGUN = "clip", "begun"
NAMES = (CLIP, BEGUN)


class Views(NamedTuple):
    """The latent frames that each step's pass sees; hashable."""

    frames: tuple[tuple[int, ...], ...]  # of every step, ascending; the last one sees all
    hide: bool  # every row hides, of these, what it has not begun

    @property
    def total(self) -> int:
        """All latent frames."""
        return len(self.frames[-1])

    def fractions(self) -> Float[np.ndarray, " i"]:
        """The part of the clip that every step's pass sees."""
        return np.array([len(seen) for seen in self.frames]) / self.total


def positions(frames: Sequence[int], per_frame: int) -> Int[np.ndarray, " n"]:
    """The places, in a clip, of the tokens of `frames`."""
    return (np.array(frames)[:, None] * per_frame + np.arange(per_frame)).ravel()


def whole(steps: int, frames: int) -> Views:
    """Views that serve whatever is known of the rows, at the cost of passes over the clip."""
    return Views((tuple(range(frames)),) * steps, hide=True)


def of(
    known: Bool[np.ndarray, "b s"],
    counts: Int[np.ndarray, "i u"],
    ranks: Int[np.ndarray, " r"] | None,
    per_frame: int,
) -> Views:
    """The views of rows whose `known` tokens are given; `counts` are those of `decode.plan`.

    Each is a program of its own: only rows of which nothing, or the same first latent frames, are
    known have parts of the clip as views, and all others are `whole`.
    """
    steps, length = len(counts), known.shape[1]
    first = np.arange(length) < known[0].sum()
    if known[0].sum() % per_frame or (known != first).any():
        return whole(steps, length // per_frame)
    place = places(first[None], ranks)
    seen = [begun(place, first[None].sum(1), counts, per_frame, i)[0] for i in range(steps)]
    # A step that would see nothing is never run.
    frames = tuple(tuple(np.flatnonzero(one if one.any() else ~one).tolist()) for one in seen)
    return Views(frames, hide=False)


def places(known: Any, ranks: Any) -> Any:
    """The place [b s] of each token among those of its row: first `known` ones, then by `ranks`.

    NumPy arrays or JAX's. `ranks` may be those of a longer clip.
    """
    xp = known.__array_namespace__()
    rank = xp.where(known, -1, xp.asarray(ranks)[: known.shape[1]])
    return xp.argsort(xp.argsort(rank, axis=1), axis=1)


def begun(place: Any, known: Any, counts: Any, per_frame: int, step: Any) -> Any:
    """The latent frames [b t] with a known token, or one that is decoded by the end of `step`.

    `place` is [b s], `known` how many tokens of each row are, `counts` [i u] those of
    `decode.plan`. NumPy arrays or JAX's.
    """
    xp = place.__array_namespace__()
    length = place.shape[1]
    # The last step decodes all that is left.
    masked = xp.where(step == len(counts) - 1, 0, xp.asarray(counts)[step, length - known])
    decoded = place < (length - masked)[:, None]
    return decoded.reshape(len(place), -1, per_frame).any(-1)
