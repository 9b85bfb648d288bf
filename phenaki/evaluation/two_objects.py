"""Exact text alignment of videos with two moving shapes, for worlds that have them."""

import dataclasses

import numpy as np
from jaxtyping import Float

from phenaki.data.shapes import attributes, captions, detector
from phenaki.data.shapes.attributes import Combinations
from phenaki.data.shapes.world import World


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The texts of b prompts, and the combinations of both objects that each asks for."""

    texts: list[str]
    combinations: tuple[Combinations, Combinations]


def prompts(world: World, split: str, count: int) -> Prompts:
    """Prompts "a red circle moves left and a blue square moves right" of `count` clips."""
    pairs = dataclasses.replace(world, then=0.0, pair=1.0)
    clips = attributes.sample(pairs, split, np.arange(count))
    assert clips.other is not None
    texts = captions.of_videos(pairs, split, np.arange(count), clips)
    return Prompts(texts, (clips.combination, clips.other.combination))


def verdict(
    world: World,
    video: Float[np.ndarray, "b f h w 3"],
    prompts: Prompts,
    frames: slice = slice(None),
    walls: bool = False,
) -> detector.Verdict:
    """Judges the `frames` of clips by both objects: an attribute is right where it is of both.

    A third object, or parts of one, is too many: "present" is wrong. `walls` as in
    `detector.judge`.
    """
    readings = [detector.read(world, video, asked[:, 0]) for asked in prompts.combinations]
    third = readings[0].foreign + readings[1].foreign - 1
    both = []
    for reading, asked in zip(readings, prompts.combinations, strict=True):
        colour, shape, direction = asked.T
        one = dataclasses.replace(reading, foreign=third)
        both.append(detector.judge(world, one, colour, shape, direction, frames, walls))
    first, second = both
    return detector.Verdict(
        *(
            getattr(first, field.name) & getattr(second, field.name)
            for field in dataclasses.fields(detector.Verdict)
        )
    )
