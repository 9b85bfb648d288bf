"""Where clips start: how many do, and those that start where earlier windows of a story lead."""

import dataclasses

import numpy as np
import pytest

from phenaki.data.shapes import attributes, render
from phenaki.data.shapes.world import DIRECTIONS, World, room

PLAIN = World(radius=5.5, sizes=("large",), then=0.5)
WANDER = dataclasses.replace(PLAIN, wander=1.0)
COUNT = 4000


@pytest.fixture(scope="module")
def clips():
    return attributes.sample(WANDER, "train", np.arange(COUNT))


def test_clips_without_a_change_and_other_attributes_are_those_of_the_plain_world(clips):
    plain = attributes.sample(PLAIN, "train", np.arange(COUNT))
    for field in ("colour", "shape", "direction", "size", "background", "then"):
        np.testing.assert_array_equal(getattr(clips, field), getattr(plain, field))
    moved = (clips.centre != plain.centre).any((1, 2))
    assert not moved[~clips.then].any() and moved[clips.then].mean() > 0.8


@pytest.mark.parametrize("split", ["test", "held_out"])
def test_a_fraction_of_the_clips_with_a_change_wanders(split):
    plain, some = (
        attributes.sample(dataclasses.replace(PLAIN, wander=w), split, np.arange(COUNT))
        for w in (0.0, 0.4)
    )
    moved = (some.centre != plain.centre).any((1, 2))
    expected = 0.4 * plain.then.mean()
    assert abs(moved.mean() - expected) < 0.03


def test_every_place_between_the_walls_is_a_start_and_most_at_a_wall_rest(clips):
    low, high = room(WANDER, clips.shape[:, 0], clips.size)
    start, then = clips.centre[:, 0], clips.then
    assert (start >= low).all() and (start <= high).all()
    assert (clips.centre >= 0).all() and (clips.centre < WANDER.size).all()
    for shape in range(len(WANDER.shapes)):
        rows = then & (clips.shape[:, 0] == shape)
        for axis in range(2):
            seen = np.unique(start[rows, axis])
            every = np.arange(low[rows][0, axis], high[rows][0, axis] + 1)
            np.testing.assert_array_equal(seen, every)
    steps = np.array([DIRECTIONS[d] for d in WANDER.directions])[clips.direction[:, 0]]
    wall = np.where(steps > 0, high, low)
    there = ((start == wall) & (steps != 0)).any(1)
    rests = (clips.centre[:, : WANDER.turn] == start[:, None]).all((1, 2))
    np.testing.assert_array_equal(there, rests)
    assert 0.4 < there[then].mean() < 0.6  # half of the objects of a long story rest


def test_what_no_first_window_shows_has_no_first_windows_caption(clips):
    captions = render.render(WANDER, "train", np.arange(COUNT))["caption"]
    still = (clips.centre == clips.centre[:, :1]).all((1, 2))
    assert still.sum() > 200
    for caption, then in zip(captions, clips.then, strict=True):
        assert caption.startswith("then a ") == then
    plain = render.render(PLAIN, "train", np.arange(COUNT))["caption"]
    assert [a == b for a, b in zip(captions, plain, strict=True)].count(False) > 100


def test_an_object_of_a_lattice_finer_than_pixels_stays_on_it():
    world = World(size=64, radius=10.0, speed=2.5, subpixel=4, then=1.0, wander=1.0)
    centre = attributes.sample(world, "train", np.arange(500)).centre
    np.testing.assert_array_equal(centre * world.subpixel, np.rint(centre * world.subpixel))


@pytest.mark.parametrize(("then", "wander"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.8)])
def test_the_number_of_distinct_clips_is_counted(then, wander):
    world = World(
        size=16,
        frames=7,
        radius=2.5,
        speed=1.0,
        turn=3,
        colours=("red", "blue"),
        shapes=("triangle",),
        sizes=("large",),
        directions=("left", "right"),
        backgrounds=("black",),
        held_out=0,
        then=then,
        wander=wander,
    )
    found = set()
    for first in range(0, 80_000 if wander else 16_000, 8000):
        made = render.render(world, "train", np.arange(first, first + 8000))["video"]
        found |= {video.tobytes() for video in made}
    assert len(found) == world.distinct()


def test_the_laptops_world_is_too_large_to_memorise():
    assert World(radius=5.5, sizes=("large",), then=0.4).distinct() > 100_000
