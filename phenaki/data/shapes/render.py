"""Renders moving shapes: procedural captioned clips and images, by index.

One or two anti-aliased shapes move over a plain background and never leave the frame. A "then" clip
changes direction, colour or shape at frame `World.turn`, where the windows of a story meet.
`detector.py` reads shape, colour and direction back from the pixels, which measures text alignment.
"""

import dataclasses
import functools

import numpy as np

from phenaki.data.shapes import attributes, captions
from phenaki.data.shapes.world import BACKGROUNDS, COLOURS, EXTENT, SIZES, World, palette


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


def render(world: World, split: str, indices: np.ndarray) -> dict:
    """Renders the clips `indices` of `split`.

    Returns {"video": uint8 [b f h w 3], "caption": list of b strings, "clips": `ClipAttributes`}.
    """
    clips = attributes.sample(world, split, indices)
    leg = (np.arange(world.frames) >= world.turn).astype(int)
    video = _backgrounds(world, clips)
    _paint(world, video, clips, leg)
    if clips.other is not None and clips.pair is not None:
        _paint(world, video, clips.other, leg, np.flatnonzero(clips.pair))
    caption = captions.of_videos(world, split, indices, clips)
    return {"video": np.rint(video).astype(np.uint8), "caption": caption, "clips": clips}


def render_images(world: World, split: str, indices: np.ndarray) -> dict:
    """Renders images, also of the colours that no video shows; as `render`, with f = 1."""
    one = dataclasses.replace(world, frames=1, then=0.0, pair=0.0, seed=world.seed + 7919)
    clips = attributes.sample(one, split, indices)
    random = functools.partial(attributes.uniform, one, split, indices)
    if world.still_colours:
        extra = len(world.colours) + (random(30) * len(world.still_colours)).astype(int)
        colour = np.where((random(31) < 0.25)[:, None], extra[:, None], clips.colour)
        clips = dataclasses.replace(clips, colour=colour)
    caption = captions.of_images(one, split, indices, clips)
    video = _backgrounds(one, clips)
    _paint(one, video, clips, np.zeros(1, int))
    return {"video": np.rint(video).astype(np.uint8), "caption": caption, "clips": clips}


def _backgrounds(world, clips):
    """Plain frames [b f h w 3]."""
    colours = np.array([BACKGROUNDS[b] for b in world.backgrounds], np.float32)[clips.background]
    shape = (len(colours), world.frames, world.size, world.size, 3)
    return np.array(np.broadcast_to(colours[:, None, None, None], shape))


def _paint(world, video, clips, leg, rows=slice(None)):
    """Blends the object of each frame into the clips `rows` of `video` [b f h w 3], in place.

    Only the pixels near an object are touched: most of a large frame is background.
    """
    sprites = _sprites(world.size, world.radius, world.subpixel, world.shapes, world.sizes)
    centre = clips.centre[rows]
    whole = np.floor(centre + 1e-6).astype(int)
    sub = np.rint((centre - whole) * world.subpixel).astype(int) % world.subpixel
    side = min(2 * int(np.ceil(world.radius * max(map(max, EXTENT.values())))) + 3, world.size)
    first = np.clip(whole - side // 2, 0, world.size - side)
    y, x = (first[..., axis, None] + np.arange(side) for axis in (0, 1))  # [b, f, side]
    expand = (..., None, None)
    cover = sprites[
        clips.shape[rows][:, leg][expand],
        clips.size[rows][:, None][expand],
        sub[..., 0][expand],
        sub[..., 1][expand],
        (y + world.size - whole[..., :1])[..., :, None],
        (x + world.size - whole[..., 1:])[..., None, :],
    ][..., None]
    colours = np.array([COLOURS[c] for c in palette(world)], np.float32)
    colours = colours[clips.colour[rows][:, leg]][:, :, None, None]
    clip = np.arange(len(video))[rows][:, None, None, None]
    near = clip, np.arange(world.frames)[:, None, None], y[..., :, None], x[..., None, :]
    video[near] += cover * (colours - video[near])
