"""Moving shapes: procedural captioned clips and stills, made by index, and how they are captioned.

One or two anti-aliased shapes move over a plain background and never leave the frame. A "then" clip
changes direction, colour or shape at frame `World.turn`, which is where a story window hands over.
`detector.py` reads shape, colour and direction back from the pixels, so text alignment is a number.
"""

import dataclasses
import functools

import numpy as np

from phenaki.data.shapes.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    SIZES,
    SPLITS,
    World,
    bounds,
    offsets,
    palette,
    start_bounds,
)

SINGLE = (
    "a {object} moves {direction}",
    "a {object} is moving {direction}",
    "the {object} moves {direction} on a {background} background",
    "a {object} goes {direction}",
)
AND = "a {object} moves {direction} and a {other} moves {other_direction}"
THEN = (
    "a {object} moves {direction}, then a {next} moves {next_direction}",
    "then a {next} moves {next_direction}",
)
STILL = ("a {object} on a {background} background", "a picture of a {object}", "a {object}")


def alpha(shape: str, radius: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Anti-aliased coverage in 0..1 at offsets (y, x) from the centroid, in pixels."""
    if shape == "circle":
        distance = np.hypot(y, x) - 0.72 * radius
    elif shape == "square":
        distance = np.maximum(abs(y), abs(x)) - 1.1 * radius
    else:  # equilateral, one corner up; 0.72 is the radius of its inscribed circle
        distance = np.maximum(y, np.sqrt(3) / 2 * abs(x) - y / 2) - 0.72 * radius
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _sprites(size: int, radius: float, subpixel: int, shapes: tuple, sizes: tuple) -> np.ndarray:
    """Coverage [shape, size, sub y, sub x, 2S, 2S] of objects centred at (S, S) + sub/subpixel."""
    grid = np.arange(2 * size) - size
    sub = np.arange(subpixel) / subpixel
    y = grid[:, None] - sub[:, None, None, None]
    x = grid[None, :] - sub[None, :, None, None]
    return np.stack([np.stack([alpha(s, radius * SIZES[z], y, x) for z in sizes]) for s in shapes])


def uniform(world: World, split: str, indices: np.ndarray, slot: int) -> np.ndarray:
    """Uniform [0, 1) by (seed, split, index, slot): splitmix64, so any clip is made on its own."""
    with np.errstate(over="ignore"):
        z = np.asarray(indices).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64((world.seed * 8 + SPLITS.index(split)) * 1_000_003 + slot) * np.uint64(
            0xD1B54A32D192ED03
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


@dataclasses.dataclass(frozen=True)
class Clips:
    """Attributes of b clips. Axis 1 of the pairs is the leg: before and from `turn` on."""

    colour: np.ndarray  # [b, 2] index into `palette`
    shape: np.ndarray  # [b, 2]
    direction: np.ndarray  # [b, 2]
    size: np.ndarray  # [b]
    background: np.ndarray  # [b]
    centre: np.ndarray  # [b, f, 2] (y, x) of the centroid, pixels
    then: np.ndarray  # [b] bool
    caption: list[str]
    other: "Clips | None" = None  # the second object; meaningful where `pair`
    pair: np.ndarray | None = None  # [b] bool


def draw(world: World, split: str, indices: np.ndarray) -> Clips:
    """Draws the attributes of the clips `indices` of `split` ("train", "test" or "held_out").

    "test" has the seen combinations at other seeds; "held_out" the combinations never trained on.
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
    centre = _walk(world, shape, size, direction, start)
    clips = Clips(colour, shape, direction, size, background, centre, then, [], None, pair)
    if world.pair:
        clips = dataclasses.replace(clips, other=_other(world, clips, random))
    nameless = random(25) < world.nameless
    captions = _captions(world, clips, random(7), random(8), nameless)
    return dataclasses.replace(clips, caption=captions)


def changed(world, first, random):
    """The second leg: one attribute of the first changed, or none; always a seen combination."""
    seen, _ = world.combinations
    known = np.zeros([len(x) for x in (world.colours, world.shapes, world.directions)], bool)
    known[tuple(seen.T)] = True
    result = first.copy()
    which = (random(9) * 4).astype(int)  # 0 colour, 1 shape, 2 direction, 3 nothing
    for attempt in range(4):  # the last seen candidate wins
        for field, names in enumerate((world.colours, world.shapes, world.directions)):
            candidate = first.copy()
            shift = 1 + (random(10 + attempt) * (len(names) - 1)).astype(int)
            candidate[:, field] = (first[:, field] + shift) % len(names)
            take = (which == field) & known[tuple(candidate.T)]
            result[take] = candidate[take]
    return result


def _walk(world, shape, size, direction, start):
    """Centres [b, f, 2]: a step per frame; an object stops at a wall."""
    steps = np.array([DIRECTIONS[d] for d in world.directions], np.float64) * world.speed
    rest = np.zeros((len(start), 1, 2))
    walls = [bounds(world, shape[:, leg], size, rest) for leg in (0, 1)]
    centre = [start]
    for frame in range(1, world.frames):
        leg = int(frame >= world.turn)
        centre.append(np.clip(centre[-1] + steps[direction[:, leg]], *walls[leg]))
    return np.stack(centre, 1)


def _other(world, clips, random):
    """A second object of another colour in the far lane, moving along the same axis."""
    count = len(world.colours)
    colour = (clips.colour + 1 + (random(20) * (count - 1)).astype(int)[:, None]) % count
    shape = np.repeat((random(21) * len(world.shapes)).astype(int)[:, None], 2, 1)
    vectors = np.array([DIRECTIONS[d] for d in world.directions])
    own = vectors[clips.direction[:, 0]]
    back = np.array([np.flatnonzero((vectors == -v).all(1))[0] for v in vectors])[clips.direction]
    direction = np.where((random(22) < 0.5)[:, None], clips.direction, back)
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


def name(world: World, clips: Clips, row: int, leg: int, colour: bool = True) -> str:
    """ "large red circle", or without its colour; the size only where the world has several."""
    words = [palette(world)[clips.colour[row, leg]]] * colour
    words.append(world.shapes[clips.shape[row, leg]])
    return " ".join([world.sizes[clips.size[row]]] * (len(world.sizes) > 1) + words)


def _captions(world, clips, which, also, nameless):
    def named(clips, row, leg):
        colour = palette(world)[clips.colour[row, leg]]
        return name(world, clips, row, leg, not nameless[row] and colour not in world.unnamed)

    captions = []
    for row, (u, v) in enumerate(zip(which, also, strict=True)):
        words = dict(
            object=named(clips, row, 0),
            direction=world.directions[clips.direction[row, 0]],
            next=named(clips, row, 1),
            next_direction=world.directions[clips.direction[row, 1]],
            background=world.backgrounds[clips.background[row]],
        )
        differs = words["object"] != words["next"] or words["direction"] != words["next_direction"]
        templates = THEN if differs else SINGLE + THEN[1:] if clips.then[row] else SINGLE
        template = templates[int(u * len(templates))]
        if clips.pair is not None and clips.pair[row]:
            other = clips.other
            template = AND
            words["other"] = named(other, row, 0)
            words["other_direction"] = world.directions[other.direction[row, 0]]
        if v < 0.5:  # sizes are named in half of the captions only: prompts need not name them
            words = {k: w.removeprefix("small ").removeprefix("large ") for k, w in words.items()}
        captions.append(template.format(**words))
    return captions


def render(world: World, split: str, indices: np.ndarray) -> dict:
    """Clips by index.

    Returns {"video": uint8 [b f h w 3], "caption": list of b strings, "clips": `Clips`}.
    """
    clips = draw(world, split, indices)
    canvas = np.array([BACKGROUNDS[b] for b in world.backgrounds], np.float32)[clips.background]
    leg = (np.arange(world.frames) >= world.turn).astype(int)
    video = np.broadcast_to(
        canvas[:, None, None, None], (len(canvas), world.frames, world.size, world.size, 3)
    )
    video = _paint(world, video, clips, leg)
    if clips.other is not None and clips.pair is not None:
        video = np.where(
            clips.pair[:, None, None, None, None], _paint(world, video, clips.other, leg), video
        )
    return {"video": np.rint(video).astype(np.uint8), "caption": clips.caption, "clips": clips}


def render_stills(world: World, split: str, indices: np.ndarray) -> dict:
    """Captioned one-frame clips, also of the colours that no video shows; as `render`, f = 1."""
    indices = np.asarray(indices)
    one = dataclasses.replace(world, frames=1, then=0.0, pair=0.0, seed=world.seed + 7919)
    clips = draw(one, split, indices)
    random = functools.partial(uniform, one, split, indices)
    if world.still_colours:
        extra = len(world.colours) + (random(30) * len(world.still_colours)).astype(int)
        colour = np.where((random(31) < 0.25)[:, None], extra[:, None], clips.colour)
        clips = dataclasses.replace(clips, colour=colour)
    which = (random(32) * len(STILL)).astype(int)
    captions = [
        STILL[k].format(
            object=name(one, clips, row, 0), background=one.backgrounds[clips.background[row]]
        )
        for row, k in enumerate(which)
    ]
    canvas = np.array([BACKGROUNDS[b] for b in one.backgrounds], np.float32)[clips.background]
    video = np.broadcast_to(canvas[:, None, None, None], (len(canvas), 1, one.size, one.size, 3))
    video = _paint(one, video, clips, np.zeros(1, int))
    clips = dataclasses.replace(clips, caption=captions)
    return {"video": np.rint(video).astype(np.uint8), "caption": captions, "clips": clips}


def _paint(world, video, clips, leg):
    """Blends each frame's object over `video` [b f h w 3]."""
    sprites = _sprites(world.size, world.radius, world.subpixel, world.shapes, world.sizes)
    whole = np.floor(clips.centre + 1e-6).astype(int)
    sub = np.rint((clips.centre - whole) * world.subpixel).astype(int) % world.subpixel
    grid = np.arange(world.size)
    rows = world.size + grid - whole[..., :1]  # [b, f, h] rows of the sprite that cover the frame
    columns = world.size + grid - whole[..., 1:]
    expand = (..., None, None)
    cover = sprites[
        clips.shape[:, leg][expand],
        clips.size[:, None][expand],
        sub[..., 0][expand],
        sub[..., 1][expand],
        rows[..., :, None],
        columns[..., None, :],
    ][..., None]
    colours = np.array([COLOURS[c] for c in palette(world)], np.float32)[clips.colour[:, leg]]
    return video + cover * (colours[:, :, None, None] - video)
