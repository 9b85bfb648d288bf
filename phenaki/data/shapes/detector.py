"""Detector of moving shapes: reads shape, colour and direction from pixels and judges clips."""

import dataclasses
import functools

import numpy as np

from phenaki.data.shapes import render, templates
from phenaki.data.shapes.world import COLOURS, DIRECTIONS, SIZES, World, palette

PRESENT_IOU = 0.55  # minimum overlap of the object with the best shape template
PRESENT_FRACTION = 0.8  # of the frames that must show the attribute
FOREIGN = 0.2  # maximum fraction of the object's pixels with another colour


@dataclasses.dataclass(frozen=True)
class Reading:
    """What b clips of f frames show, per frame; indices are those of `World`."""

    colour: np.ndarray  # [b, f]
    shape: np.ndarray  # [b, f]
    distorted: np.ndarray  # [b, f] another shape, or a size that no object has, fits better
    overlap: np.ndarray  # [b, f] soft IoU with the best template, 0..1
    foreign: np.ndarray  # [b, f] fraction of object pixels of other colours
    centre: np.ndarray  # [b, f, 2] (y, x) of the centroid in pixels


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether each attribute of a clip is the requested one [b]; `all` is their conjunction.

    `identity` is stricter than `colour` and `shape`: both are the requested ones in every frame,
    and no frame's object is distorted (`phenaki/data/shapes/templates.py`).
    """

    colour: np.ndarray
    shape: np.ndarray
    direction: np.ndarray
    present: np.ndarray
    identity: np.ndarray

    @property
    def all(self) -> np.ndarray:
        """One object of the requested colour and shape moves in the requested direction."""
        return self.colour & self.shape & self.direction & self.present


def read(world: World, video: np.ndarray, colour: np.ndarray | None = None) -> Reading:
    """Reads `video` (uint8, or float in [0, 1]; [b f h w 3]).

    With `colour` [b] (indices into the palette) only the object of that colour is read, such as one
    of a pair, of which the other is foreign; otherwise the object of the colour with most pixels.
    """
    if video.dtype == np.uint8:
        video = video.astype(np.float32) / 255
    batches = [
        _read(
            world, np.clip(video[i : i + 32], 0, 1), None if colour is None else colour[i : i + 32]
        )
        for i in range(0, len(video), 32)
    ]
    return Reading(
        *(
            np.concatenate([getattr(r, f.name) for r in batches])
            for f in dataclasses.fields(Reading)
        )
    )


def _read(world, video, wanted):
    names = palette(world)
    table = np.array([COLOURS[c] for c in names], np.float32) / 255
    ground = np.median(video, axis=(1, 2, 3))[:, None, None, None]  # objects are small
    difference = video - ground
    apart = np.stack([np.square(video - c).sum(-1) for c in table], -1)
    nearest = apart.argmin(-1)
    # The core of an object is nearer to its colour than its anti-aliased rim.
    contrast = np.square(table[nearest] - ground).sum(-1)
    core = apart.min(-1) < 0.3**2 * contrast
    counts = np.stack(
        [(core & (nearest == k)).sum((2, 3)) for k in range(len(table))], -1
    )  # [b f k]
    total = np.maximum(counts.sum(-1), 1)
    colour = (
        counts.argmax(-1) if wanted is None else np.broadcast_to(wanted[:, None], counts.shape[:2])
    )
    own = np.take_along_axis(counts, colour[..., None], -1)[..., 0]

    # Coverage: position of each pixel between the background (0) and the object's colour (1).
    way = table[colour][:, :, None, None] - ground
    cover = (difference * way).sum(-1) / np.maximum(np.square(way).sum(-1), 1e-6)
    near = nearest == colour[..., None, None]
    if wanted is not None:  # excludes the rim of the other object
        cover = cover * _near(near & core)
    cover = np.clip(cover, 0, 1)
    grid = np.arange(world.size)
    mass = np.maximum(cover.sum((2, 3)), 1e-6)
    centre = np.stack(
        [(cover.sum(3) * grid).sum(-1) / mass, (cover.sum(2) * grid).sum(-1) / mass], -1
    )
    overlap = _overlaps(world, cover, centre)
    best = overlap.argmax(-1)
    present = own > 0
    overlap = np.where(present, np.take_along_axis(overlap, best[..., None], -1)[..., 0], 0)
    colour = np.where(present, colour, -1)
    shape = best % len(world.shapes)
    frames = (-1, *cover.shape[2:])
    distorted = templates.distorted(world, cover.reshape(frames), shape.ravel())
    distorted = distorted.reshape(shape.shape)
    return Reading(colour, shape, distorted, overlap, 1 - own / total, centre)


def _near(mask):
    """Dilates `mask` [b f h w] by two pixels."""
    for _ in range(2):
        grown = mask.copy()
        grown[:, :, 1:] |= mask[:, :, :-1]
        grown[:, :, :-1] |= mask[:, :, 1:]
        grown[..., 1:] |= mask[..., :-1]
        grown[..., :-1] |= mask[..., 1:]
        mask = grown
    return mask


def _overlaps(world, cover, centre):
    """Soft IoU [b f size·shape] of `cover` with every shape's template at the centroid."""
    grid = np.arange(world.size, dtype=np.float32)
    y = grid[:, None] - centre[..., 0, None, None].astype(np.float32)
    x = grid[None, :] - centre[..., 1, None, None].astype(np.float32)
    result = []
    for size in world.sizes:
        for shape in world.shapes:
            template = render.alpha(shape, world.radius * SIZES[size], y, x)
            both = np.minimum(cover, template).sum((2, 3))
            result.append(both / np.maximum(np.maximum(cover, template).sum((2, 3)), 1e-6))
    return np.stack(result, -1)


def judge(
    world: World,
    reading: Reading,
    colour: np.ndarray,
    shape: np.ndarray,
    direction: np.ndarray,
    frames: slice = slice(None),
    walls: bool = False,
) -> Verdict:
    """Compares the frames `frames` of a reading with the requested attributes, index arrays [b].

    Colour and shape must be right, and one object present, in 80 % of the frames; for `identity`
    colour and shape in all of them, with no object distorted. The direction is right if the net
    displacement along it exceeds half the world's speed per frame, and twice the displacement
    across it. With `walls`, rest at the wall in that direction is right as well: in a story an
    object may arrive there.
    """
    pick = functools.partial(_pick, frames)
    ok = (pick(reading.overlap) > PRESENT_IOU) & (pick(reading.foreign) < FOREIGN)
    centre = pick(reading.centre)
    steps = np.array([DIRECTIONS[d] for d in world.directions], float)[direction]
    net = centre[:, -1] - centre[:, 0]
    along = (net * steps).sum(-1)
    aside = abs(net - along[:, None] * steps).sum(-1)
    right = (along > 0.5 * world.speed * (centre.shape[1] - 1)) & (aside < 0.5 * along)
    if walls:
        edge = np.where(steps > 0, world.size - 1 - centre[:, -1], centre[:, -1])
        distance = (edge * abs(steps)).sum(-1)
        rest = (along > -0.5) & (aside < world.speed) & (distance < 1.44 * world.radius + 1)
        right |= rest
    colours, shapes = (
        pick(read) == asked[:, None]
        for read, asked in ((reading.colour, colour), (reading.shape, shape))
    )
    return Verdict(
        colour=_mostly(colours),
        shape=_mostly(shapes),
        direction=right,
        present=_mostly(ok),
        identity=(colours & shapes & ~pick(reading.distorted)).all(1),
    )


def _pick(frames, x):
    return x[:, frames]


def _mostly(x):
    return x.mean(1) >= PRESENT_FRACTION
