"""The world of moving shapes: what may appear in it, and where an object fits between its walls."""

import dataclasses
import functools
import itertools

import numpy as np

from phenaki.errors import UserError

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

# Half extents (up, down, left, right) over `radius`; unequal areas keep small shapes apart.
EXTENT = {"circle": (0.72,) * 4, "square": (1.1,) * 4, "triangle": (1.44, 0.72, 1.25, 1.25)}


@dataclasses.dataclass(frozen=True)
class World:
    """What may appear. Lengths are pixels, times are frames, shares are in 0..1."""

    size: int = 32
    frames: int = 11
    seed: int = 0
    radius: float = 5.0  # of the large size; each shape scales it by its own factor
    speed: float = 1.0
    subpixel: int = 1  # start positions per pixel and axis
    colours: tuple[str, ...] = ("red", "green", "blue", "yellow", "cyan", "white")
    shapes: tuple[str, ...] = SHAPES
    directions: tuple[str, ...] = tuple(DIRECTIONS)
    backgrounds: tuple[str, ...] = ("black", "gray", "navy")
    sizes: tuple[str, ...] = ("small", "large")
    still_colours: tuple[str, ...] = ()  # colours that no video shows
    unnamed: tuple[str, ...] = ()  # colours that videos show, and only captions of stills name
    nameless: float = 0.0  # share of all other videos whose caption names no colour, either
    held_out: int = 6  # one in so many (colour, shape, direction) is never trained on
    then: float = 0.0  # share of clips that change at frame `turn`
    turn: int = 5
    pair: float = 0.0  # share of clips with two objects

    def __post_init__(self):
        known = dict(
            colours=COLOURS,
            shapes=SHAPES,
            directions=DIRECTIONS,
            backgrounds=BACKGROUNDS,
            sizes=SIZES,
            unnamed=COLOURS,
        )
        for field, names in known.items():
            for value in getattr(self, field):
                if value not in names:
                    raise UserError(
                        f"config.data.world.{field}: unknown {value!r}; known: {', '.join(names)}."
                    )
        # Both the longest path and two lanes for pairs must fit between the walls.
        reach = 2 * self.radius * max(max(EXTENT[s]) for s in self.shapes) + 2
        need = reach + self.speed * (self.frames - 1)
        if need > self.size:
            fits = max((self.size - reach) / max(self.frames - 1, 1), 0)
            raise UserError(
                f"config.data.world.speed={self.speed} px/frame leaves a {self.size} px frame "
                f"within {self.frames} frames; the fastest that stays inside is {fits:.2f}."
            )

    @functools.cached_property
    def combinations(self) -> tuple[np.ndarray, np.ndarray]:
        """(seen, held out): rows of (colour, shape, direction) indices."""
        ranges = (range(len(x)) for x in (self.colours, self.shapes, self.directions))
        every = np.array(list(itertools.product(*ranges)))
        # Every *pair* of values stays in the seen part, so a held-out triple tests composition.
        held = (
            (every @ (1, 2, 1)) % self.held_out == 0
            if self.held_out
            else np.zeros(len(every), bool)
        )
        return every[~held], every[held]

    def distinct(self) -> int:
        """Number of distinct one-object training clips, start positions counted exactly."""
        seen, _ = self.combinations
        legs = [(combo, combo) for combo in seen]
        if self.then:
            pairs = itertools.product(seen, seen)
            legs += [(first, second) for first, second in pairs if (first != second).sum() == 1]
        combos = np.array(legs)
        then = np.full(len(combos), self.then > 0)  # includes legs that go on as they were
        total = 0
        for size in range(len(self.sizes)):
            low, high = start_bounds(self, combos, np.full(len(combos), size), then)
            total += int(np.prod(np.floor((high - low) * self.subpixel) + 1, axis=-1).sum())
        return total * len(self.backgrounds)


def palette(world: World) -> tuple[str, ...]:
    """Colour names by index: those of videos first, then those that stills add."""
    return (*world.colours, *world.still_colours)


def offsets(world: World, directions: np.ndarray) -> np.ndarray:
    """Displacement [b, f, 2] from the start for the two legs' directions [b, 2]."""
    steps = np.array([DIRECTIONS[d] for d in world.directions], np.float64) * world.speed
    leg = (np.arange(1, world.frames) >= world.turn).astype(int)
    moves = steps[directions[:, leg]]
    return np.concatenate([np.zeros((len(directions), 1, 2)), np.cumsum(moves, axis=1)], axis=1)


def bounds(world, shape, size, path):
    """Lowest and highest start (y, x) [b, 2] that keep `path` [b, f, 2] between the walls."""
    scale = world.radius * np.array([SIZES[s] for s in world.sizes])[size]
    up, down, left, right = (np.array([EXTENT[s] for s in world.shapes])[shape] * scale[:, None]).T
    low = np.ceil(np.stack([up, left], -1)) - path.min(1)
    high = np.floor(world.size - 1 - np.stack([down, right], -1)) - path.max(1)
    return low, high


def start_bounds(world, combo, size, then):
    """Lowest and highest start (y, x) [b, 2] of clips with legs `combo` [b, leg, 3]."""
    path = offsets(world, combo[..., 2])
    # The second leg of `then` clips may end resting at a wall, as it may in a story.
    free = path[:, [min(world.turn + 2, world.frames - 1)]]
    inside = np.concatenate(
        [path[:, : world.turn], np.where(then[:, None, None], free, path[:, -1:])], 1
    )
    limits = [bounds(world, combo[:, leg, 1], size, inside) for leg in (0, 1)]
    return np.maximum(limits[0][0], limits[1][0]), np.minimum(limits[0][1], limits[1][1])
