"""Attributes of moving-shapes clips, sampled by index: colour, shape, direction, size, path."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Int

from phenaki.data.shapes.world import (
    DIRECTIONS,
    SPLITS,
    World,
    bounds,
    offsets,
    room,
    start_bounds,
)


def uniform(world: World, split: str, indices: np.ndarray, slot: int) -> np.ndarray:
    """Uniform [0, 1) by (seed, split, index, slot), with splitmix64: clips are independent."""
    with np.errstate(over="ignore"):
        z = np.asarray(indices).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64((world.seed * 8 + SPLITS.index(split)) * 1_000_003 + slot) * np.uint64(
            0xD1B54A32D192ED03
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


# Rows of indices into a world's lists: colour, shape, direction.
Combinations = Int[np.ndarray, "b 3"]


@dataclasses.dataclass(frozen=True)
class ClipAttributes:
    """Attributes of b clips. An axis of 2 is the leg: before `World.turn`, and from it on."""

    colour: np.ndarray  # [b, 2] index into `palette`
    shape: np.ndarray  # [b, 2]
    direction: np.ndarray  # [b, 2]
    size: np.ndarray  # [b]
    background: np.ndarray  # [b]
    centre: np.ndarray  # [b, f, 2] (y, x) of the centroid, pixels
    then: np.ndarray  # [b] bool
    other: "ClipAttributes | None" = None  # the second object, for clips with `pair`
    pair: np.ndarray | None = None  # [b] bool

    @property
    def combination(self) -> Combinations:
        """What the first leg shows."""
        return np.stack([self.colour[:, 0], self.shape[:, 0], self.direction[:, 0]], -1)


def sample(world: World, split: str, indices: np.ndarray) -> ClipAttributes:
    """Samples the attributes of the clips `indices` of `split` ("train", "test" or "held_out").

    "test" has the combinations of "train" with other seeds; "held_out" has the others.
    """
    indices = np.asarray(indices)
    random = functools.partial(uniform, world, split, indices)
    seen, held = world.combinations
    pool = held if split == "held_out" else seen
    first = pool[(random(0) * len(pool)).astype(int)]
    then = (random(1) < world.then) & (split != "held_out")
    second = np.where(then[:, None], changed(world, first, random), first)
    combo = np.stack([first, second], 1)  # [b, leg, (colour, shape, direction)]
    colour, shape, direction = combo[..., 0], combo[..., 1], combo[..., 2]
    size = (random(2) * len(world.sizes)).astype(int)
    background = (random(3) * len(world.backgrounds)).astype(int)

    low, high = start_bounds(world, combo, size, then)
    where = np.stack([random(4), random(5)], -1)
    pair = (random(6) < world.pair) & ~then
    if world.pair:  # two lanes across the direction of motion
        axis = np.array([int(DIRECTIONS[d][0] == 0) for d in world.directions])[direction[:, 0]]
        lane_axis = 1 - axis
        rows = np.arange(len(indices))
        middle = world.size / 2
        extent = world.radius * 1.44 + 1
        near, far = low.copy(), high.copy()
        far[rows, lane_axis] = np.where(
            pair, np.minimum(far[rows, lane_axis], middle - extent), far[rows, lane_axis]
        )
        high = np.maximum(far, near)
    start = low + np.floor(where * ((high - low) * world.subpixel + 1)) / world.subpixel
    if world.wander:
        wandered = _wandered(world, shape[:, 0], size, direction[:, 0], where, random)
        start = np.where(wanders(world, split, indices, then)[:, None], wandered, start)
    centre = _walk(world, shape, size, direction, start)
    clips = ClipAttributes(colour, shape, direction, size, background, centre, then, None, pair)
    if world.pair:
        known = _known(world, pool)
        clips = dataclasses.replace(clips, other=_other(world, clips, known, random))
    return clips


def wanders(world: World, split: str, indices: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Which of the clips with `then` [b] start where earlier windows of a story lead."""
    return then & (uniform(world, split, indices, 14) < world.wander)


def changed(world, first, random):
    """The second leg: `first` with one attribute changed, or none; a combination of "train"."""
    known = _known(world, world.combinations[0])
    result = first.copy()
    which = (random(9) * 4).astype(int)  # 0 colour, 1 shape, 2 direction, 3 nothing
    for attempt in range(4):  # the last candidate that is in "train" is used
        for field, names in enumerate((world.colours, world.shapes, world.directions)):
            candidate = first.copy()
            shift = 1 + (random(10 + attempt) * (len(names) - 1)).astype(int)
            candidate[:, field] = (first[:, field] + shift) % len(names)
            take = (which == field) & known[tuple(candidate.T)]
            result[take] = candidate[take]
    return result


def _known(world, combinations):
    """Whether each (colour, shape, direction) is one of `combinations`."""
    known = np.zeros([len(x) for x in (world.colours, world.shapes, world.directions)], bool)
    known[tuple(combinations.T)] = True
    return known


def _walk(world, shape, size, direction, start):
    """Centres [b, f, 2]: one step per frame; an object stops at a wall."""
    steps = np.array([DIRECTIONS[d] for d in world.directions], np.float64) * world.speed
    walls = [room(world, shape[:, leg], size) for leg in (0, 1)]
    centre = [start]
    for frame in range(1, world.frames):
        leg = int(frame >= world.turn)
        centre.append(np.clip(centre[-1] + steps[direction[:, leg]], *walls[leg]))
    return np.stack(centre, 1)


def _wandered(world, shape, size, direction, where, random):
    """Starts [b, 2] of objects that have moved before, in another direction and in their own."""
    low, high = room(world, shape, size)
    at = low + np.floor(where * ((high - low) * world.subpixel + 1)) / world.subpixel
    steps = np.array([DIRECTIONS[d] for d in world.directions], np.float64) * world.speed
    other = (random(15) * len(world.directions)).astype(int)
    for heading, far in ((other, random(16)), (direction, random(17))):
        at = np.clip(at + steps[heading] * np.floor(far * 2 * world.frames)[:, None], low, high)
    return at


def _other(world, clips, known, random):
    """The second object: of another colour, in the far lane, moving along the same axis.

    Its combination is a `known` one where one of its colour and direction is.
    """
    count = len(world.colours)
    colour = (clips.colour + 1 + (random(20) * (count - 1)).astype(int)[:, None]) % count
    shapes = len(world.shapes)
    shape = (random(21) * shapes).astype(int)
    vectors = np.array([DIRECTIONS[d] for d in world.directions])
    own = vectors[clips.direction[:, 0]]
    back = np.array([np.flatnonzero((vectors == -v).all(1))[0] for v in vectors])[clips.direction]
    direction = np.where((random(22) < 0.5)[:, None], clips.direction, back)
    # The drawn shape, or else the first after it that makes a known combination.
    candidates = (shape + np.arange(shapes)[:, None]) % shapes
    ahead = known[colour[:, 0], candidates, direction[:, 0]].argmax(0)
    shape = np.repeat(((shape + ahead) % shapes)[:, None], 2, 1)
    low, high = bounds(world, shape[:, 0], clips.size, offsets(world, direction))
    lane = 1 - abs(own[:, 1])  # the axis across the motion: x for vertical motion
    rows = np.arange(len(own))
    low[rows, lane] = np.minimum(
        np.maximum(low[rows, lane], np.ceil(world.size / 2 + world.radius * 1.44 + 1)),
        high[rows, lane],
    )
    where = np.stack([random(23), random(24)], -1)
    start = low + np.floor(where * ((high - low) * world.subpixel + 1)) / world.subpixel
    centre = _walk(world, shape, clips.size, direction, start)
    return dataclasses.replace(
        clips, colour=colour, shape=shape, direction=direction, centre=centre, other=None
    )
