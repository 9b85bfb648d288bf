"""The world of moving shapes: attributes, held-out combinations, and bounds of the paths."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from phenaki.errors import UserError, did_you_mean, one_of

COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 250),
    "yellow": (240, 220, 50),
    "cyan": (60, 220, 230),
    "white": (245, 245, 245),
    "orange": (250, 140, 30),
    "purple": (170, 60, 220),
}
BACKGROUNDS = {
    "black": (0, 0, 0),
    "gray": (72, 72, 72),
    "navy": (12, 16, 70),
    "brown": (70, 40, 16),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}  # (y, x)
SIZES = {"small": 0.8, "large": 1.0}
SPLITS = ("train", "test", "held_out")

# Half extents (up, down, left, right) relative to `radius`; the detector tells small shapes apart
# by their unequal areas.
EXTENT = {"circle": (0.72,) * 4, "square": (1.1,) * 4, "triangle": (1.44, 0.72, 1.25, 1.25)}


@dataclasses.dataclass(frozen=True)
class World:
    """What may appear. Lengths in pixels, times in frames, fractions in 0..1."""

    size: int = 32
    frames: int = 11
    seed: int = 0
    radius: float = 5.0  # of the large size, times a factor per shape
    speed: float = 1.0
    subpixel: int = 1  # start positions per pixel and axis
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow", "cyan", "white")
    shapes: tuple[str, ...] = SHAPES
    directions: tuple[str, ...] = tuple(DIRECTIONS)
    backgrounds: tuple[str, ...] = ("black", "gray", "navy")
    sizes: tuple[str, ...] = ("small", "large")
    still_colours: tuple[str, ...] = ()  # colours of images only
    unnamed: tuple[str, ...] = ()  # colours that captions of videos do not name
    nameless: float = 0.0  # fraction of the other videos whose caption names no colour
    held_out: int = 6  # one in `held_out` (colour, shape, direction) is not trained on
    then: float = 0.0  # fraction of clips that change at frame `turn`
    turn: int = 5
    wander: float = 0.0  # fraction of those with `then` that start where earlier windows lead
    pair: float = 0.0  # fraction of clips with two objects

    def __post_init__(self):
        known = dict(
            colours=COLOURS,
            shapes=SHAPES,
            directions=DIRECTIONS,
            backgrounds=BACKGROUNDS,
            sizes=SIZES,
            still_colours=COLOURS,
            unnamed=COLOURS,
        )
        for field, names in known.items():
            for value in getattr(self, field):
                one_of(f"config.data.world.{field}", value, dict.fromkeys(names))
        if self.pair:
            self._check_pairs()
        # The longest path, and two lanes for pairs, must fit between the walls.
        reach = 2 * self.radius * max(max(EXTENT[s]) for s in self.shapes) + 2
        need = reach + self.speed * (self.frames - 1)
        if need > self.size:
            extent = (reach - 2) / self.radius
            if self.size <= reach:
                raise UserError(
                    f"config.data.world.radius={self.radius} px does not fit a {self.size} px "
                    f"frame; the largest that moves in it is below {(self.size - 2) / extent:.2f}."
                )
            fits = (self.size - reach) / max(self.frames - 1, 1)
            raise UserError(
                f"config.data.world.speed={self.speed} px/frame leaves a {self.size} px frame "
                f"within {self.frames} frames; the fastest that stays inside is {fits:.2f}."
            )

    def _check_pairs(self) -> None:
        """The second object has another colour, and moves along the same axis, either way."""
        if len(self.colours) < 2:
            raise UserError(
                f"config.data.world.colours={self.colours} must be two or more with "
                f"config.data.world.pair={self.pair}."
            )
        steps = {DIRECTIONS[name] for name in self.directions}
        for name in self.directions:
            back = tuple(-step for step in DIRECTIONS[name])
            if back not in steps:
                other = next(one for one, step in DIRECTIONS.items() if step == back)
                raise UserError(
                    f"config.data.world.directions={self.directions} must have {other!r}, too, as "
                    f"it has {name!r}, with config.data.world.pair={self.pair}."
                )

    @functools.cached_property
    def combinations(self) -> tuple[np.ndarray, np.ndarray]:
        """(seen, held out): rows of indices (colour, shape, direction).

        Raises:
            UserError: all are held out.
        """
        ranges = (range(len(x)) for x in (self.colours, self.shapes, self.directions))
        every = np.array(list(itertools.product(*ranges)))
        # Every *pair* of values is seen, so that a held-out triple tests composition.
        held = (
            (every @ (1, 2, 1)) % self.held_out == 0
            if self.held_out
            else np.zeros(len(every), bool)
        )
        if held.all():
            raise UserError(
                f"config.data.world.held_out={self.held_out} leaves no combination of colour, "
                "shape and direction to train on; nearest is 0."
            )
        return every[~held], every[held]

    def distinct(self) -> int:
        """Number of distinct training clips with one object, counting start positions exactly."""
        seen, _ = self.combinations
        legs = [(combo, combo) for combo in seen]
        if self.then:
            pairs = itertools.product(seen, seen)
            legs += [(first, second) for first, second in pairs if (first != second).sum() == 1]
        combos = np.array(legs)
        then = np.full(len(combos), self.then > 0)  # includes clips whose legs are equal
        total = 0
        for size in range(len(self.sizes)):
            sizes = np.full(len(combos), size)
            low, high = start_bounds(self, combos, sizes, then)
            if self.wander:
                low, high = np.where(then[:, None], room(self, combos[:, 0, 1], sizes), (low, high))
            total += int(np.prod(np.floor((high - low) * self.subpixel) + 1, axis=-1).sum())
        return total * len(self.backgrounds)


def palette(world: World) -> tuple[str, ...]:
    """Colour names by index: first those of videos, then those of images only."""
    return (*world.colours, *world.still_colours)


def offsets(world: World, directions: np.ndarray) -> np.ndarray:
    """Displacement from the start [b, f, 2], for the directions of both legs [b, 2]."""
    steps = np.array([DIRECTIONS[d] for d in world.directions], np.float64) * world.speed
    leg = (np.arange(1, world.frames) >= world.turn).astype(int)
    moves = steps[directions[:, leg]]
    return np.concatenate([np.zeros((len(directions), 1, 2)), np.cumsum(moves, axis=1)], axis=1)


def bounds(world, shape, size, path):
    """Lowest and highest start (y, x) [b, 2] that keeps `path` [b, f, 2] between the walls."""
    scale = world.radius * np.array([SIZES[s] for s in world.sizes])[size]
    up, down, left, right = (np.array([EXTENT[s] for s in world.shapes])[shape] * scale[:, None]).T
    low = np.ceil(np.stack([up, left], -1)) - path.min(1)
    high = np.floor(world.size - 1 - np.stack([down, right], -1)) - path.max(1)
    return low, high


def room(world, shape, size):
    """Lowest and highest centre (y, x) [b, 2] of objects between the walls."""
    return bounds(world, shape, size, np.zeros((len(shape), 1, 2)))


def start_bounds(world, combo, size, then):
    """Lowest and highest start (y, x) [b, 2] of clips with legs `combo` [b, leg, 3]."""
    path = offsets(world, combo[..., 2])
    # The second leg of a `then` clip may end at rest at a wall, as in a story.
    free = path[:, [min(world.turn + 2, world.frames - 1)]]
    inside = np.concatenate(
        [path[:, : world.turn], np.where(then[:, None, None], free, path[:, -1:])], 1
    )
    limits = [bounds(world, combo[:, leg, 1], size, inside) for leg in (0, 1)]
    return np.maximum(limits[0][0], limits[1][0]), np.minimum(limits[0][1], limits[1][1])


def world_of(fields: Mapping[str, Any], *, size: int, frames: int, seed: int) -> World:
    """The world of `config.data.world`, whose clips have these sizes.

    Raises:
        UserError: it has a field that no world has, or that the clips give.
    """
    of_clips = ("size", "frames", "seed")
    known = [field.name for field in dataclasses.fields(World) if field.name not in of_clips]
    for name in fields:
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
            raise UserError(f"config.data.world.{name}: no such field{hint}.")
    return World(size=size, frames=frames, seed=seed, **fields)
