"""How much the samples of one prompt differ, for clips of moving shapes.

A sampler that draws its easiest clip over and over obeys every prompt and is worth nothing, so that
these stand next to `phenaki.evaluation.alignment`.
"""

import numpy as np
from jaxtyping import Float

from phenaki.data.shapes import attributes, detector, render
from phenaki.data.shapes.world import BACKGROUNDS, World
from phenaki.evaluation.extractors import bytes_of
from phenaki.evaluation.metrics import frechet
from phenaki.features import resize

CELLS = 4  # rows and columns of the grid on which starts are counted
POOLED = 8  # rows and columns of what `pixel_distance` compares
Clips = Float[np.ndarray, "n f h w 3"]


def of_prompts(world: World, video: Clips, prompts: int) -> dict[str, float]:
    """Means over `prompts` groups of equally many clips, one prompt after another.

    "start_px" is the mean distance of two starts, "start_bits" the entropy of starts on a grid of
    4x4 cells, "ground_bits" that of the background colour.
    """
    first = bytes_of(video[:, :1])
    starts = detector.read(world, first).centre[:, 0].reshape(prompts, -1, 2)
    table = np.array([BACKGROUNDS[name] for name in world.backgrounds]) / 255
    ground = np.median(first, axis=(1, 2, 3))
    nearest = np.square(ground[:, None] - table).sum(-1).argmin(-1).reshape(prompts, -1)
    cell = np.clip(starts * CELLS // world.size, 0, CELLS - 1).astype(int) @ (CELLS, 1)
    return {
        "start_px": float(np.mean([_spread(group) for group in starts])),
        "start_bits": float(np.mean([_bits(group) for group in cell])),
        "ground_bits": float(np.mean([_bits(group) for group in nearest])),
    }


def pixel_distance(video: Clips, real: Clips) -> float:
    """The Fréchet distance of the first and last frames of clips, averaged to 8x8 pixels in [0, 1].

    It falls with more clips: compare with that of two real sets of the same size.
    """
    a, b = (frechet.gaussian_of(_pooled(clips)) for clips in (video, real))
    return frechet.distance(a, b)


def real_clips(world: World, each: int, combinations: np.ndarray, search: int = 8192) -> Clips:
    """`each` unseen real clips of every row of `combinations`, one row after another, in [0, 1]."""
    clips = attributes.sample(world, "test", np.arange(search))
    shown = clips.combination
    rows = [np.flatnonzero((shown == wanted).all(1))[:each] for wanted in combinations]
    return render.render(world, "test", np.concatenate(rows))["video"].astype(np.float32) / 255


def _pooled(video):
    ends = resize.area(video[:, [0, -1]], (POOLED, POOLED))
    return ends.reshape(len(video), -1)


def _spread(points):
    """Mean distance of two different points."""
    count = len(points)
    between = np.linalg.norm(points[:, None] - points, axis=-1)
    return between.sum() / (count * (count - 1))


def _bits(values):
    """Entropy of the values of one group."""
    fraction = np.bincount(values) / len(values)
    fraction = fraction[fraction > 0]
    return -(fraction * np.log2(fraction)).sum()
