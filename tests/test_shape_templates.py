"""What is none of a world's shapes is not taken for one: drops, corners, other sizes."""

import dataclasses

import numpy as np
import pytest

from phenaki.data.shapes import detector, render
from phenaki.data.shapes.world import COLOURS, World

WORLDS = {
    "24 px": World(size=24, radius=4.0, sizes=("large",)),
    "32 px": World(size=32, radius=5.5, sizes=("large",)),
    "two sizes": World(size=48, radius=8.0),
    "64 px": World(size=64, radius=10.0, speed=2.5, subpixel=4),
}
world_named = pytest.mark.parametrize("name", WORLDS)


def paint(world, alpha, colour="red"):
    """Clips [1 f h w 3] of an object of coverage `alpha`(y, x), which moves right."""
    grid = np.arange(world.size, dtype=np.float32)
    frames = []
    for frame in range(world.frames):
        y = grid[:, None] - world.size // 2
        x = grid - world.size // 2 - (frame - world.frames // 2) * world.speed * 0.5
        cover = np.broadcast_to(alpha(y, x), (world.size, world.size))
        frames.append(cover[..., None] * np.array(COLOURS[colour], np.float32) / 255)
    return np.stack(frames)[None]


def shape(name, radius):
    return lambda y, x: render.alpha(name, radius, y, x)


def drop(radius):
    """A circle under a triangle that is as wide: a drop."""
    circle, tip = shape("circle", radius), shape("triangle", 0.62 * radius)
    return lambda y, x: np.maximum(circle(y, x), tip(y + 0.75 * radius, x))


def judged(world, video, name):
    reading = detector.read(world, video)
    asked = (0, world.shapes.index(name), 0)
    return detector.judge(world, reading, *(np.array([index]) for index in asked))


@world_named
def test_true_clips_are_not_distorted(name):
    world = dataclasses.replace(WORLDS[name], then=0.3)
    video = render.render(world, "test", np.arange(60))["video"] / np.float32(255)
    blurred = (video + np.roll(video, 1, 2) + np.roll(video, 1, 3)) / 3
    for seen in (video, blurred, 0.1 + 0.8 * video):
        assert detector.read(world, seen).distorted.mean() <= 0.001


@world_named
@pytest.mark.parametrize("asked", ["circle", "square", "triangle"])
def test_a_shape_is_its_own_at_any_place_between_pixels(name, asked):
    world = WORLDS[name]
    video = paint(world, shape(asked, world.radius))
    assert not detector.read(world, video).distorted.any()
    assert judged(world, video, asked).identity.all()


@world_named
def test_a_drop_is_no_circle(name):
    world = WORLDS[name]
    video = paint(world, drop(world.radius))
    found = judged(world, video, "circle")
    assert found.colour.all() and not found.identity.any()
    assert detector.read(world, video).distorted.mean() > 0.5 or not found.shape.any()


@world_named
@pytest.mark.parametrize("scale", [0.62, 0.68, 1.28])
@pytest.mark.parametrize("drawn", ["circle", "square", "triangle"])
def test_a_size_that_the_world_has_not_is_distorted(name, drawn, scale):
    """So is a small triangle, whose area is a circle's: it was taken for one."""
    world = WORLDS[name]
    video = paint(world, shape(drawn, scale * world.radius))
    for asked in world.shapes:
        assert not judged(world, video, asked).identity.any(), asked


def test_a_shape_that_changes_in_the_last_frames_has_no_identity_but_its_clip_is_right():
    world = WORLDS["32 px"]
    video = paint(world, shape("circle", world.radius))
    small = paint(world, shape("triangle", 0.75 * world.radius))
    video[:, -2:] = small[:, -2:]
    found = judged(world, video, "circle")
    assert found.shape.all() and not found.identity.any()
    np.testing.assert_array_equal(
        detector.read(world, video).distorted[0], np.arange(world.frames) >= world.frames - 2
    )
