"""Moving shapes match their captions, and the detector reads them back from the pixels."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from phenaki.data.shapes import attributes, captions, detector, render
from phenaki.data.shapes import world as shapes_world
from phenaki.data.shapes.world import World
from phenaki.errors import UserError

WORLDS = {
    "16 px": World(size=16, radius=2.5, speed=0.5, subpixel=2, sizes=("large",)),
    "24 px": World(size=24, radius=4.0, sizes=("large",), then=0.4),
    "32 px": World(),
    "64 px": World(size=64, radius=10.0, speed=2.5, subpixel=4, backgrounds=("black", "brown")),
    "then": World(then=1.0, radius=5.5),
    "wander": World(then=0.8, wander=0.7, radius=5.5, sizes=("large",)),
    "pairs": World(size=48, pair=1.0, subpixel=2),
}
COUNT = 200
world_named = pytest.mark.parametrize("name", WORLDS)


@pytest.fixture(scope="module")
def rendered():
    return {name: render.render(world, "test", np.arange(COUNT)) for name, world in WORLDS.items()}


@pytest.fixture(scope="module")
def readings(rendered):
    return {
        name: detector.read(WORLDS[name], made["video"])
        for name, made in rendered.items()
        if name != "pairs"
    }


def combinations(clips, leg=0):
    return np.stack([clips.colour[:, leg], clips.shape[:, leg], clips.direction[:, leg]], -1)


def as_set(rows):
    return {tuple(row) for row in np.asarray(rows).tolist()}


@world_named
def test_a_clip_does_not_depend_on_its_batch(name, rendered):
    world, whole = WORLDS[name], rendered[name]
    some = np.array([199, 3, 77])
    alone = render.render(world, "test", some)
    np.testing.assert_array_equal(alone["video"], whole["video"][some])
    assert alone["caption"] == [whole["caption"][i] for i in some]
    assert whole["video"].shape == (COUNT, 11, world.size, world.size, 3)
    for other in (
        render.render(world, "train", some),
        render.render(dataclasses.replace(world, seed=1), "test", some),
    ):
        assert (other["video"] != alone["video"]).any()
    assert len(np.unique(whole["video"], axis=0)) > 0.9 * COUNT


@world_named
def test_nothing_leaves_the_frame(name, rendered):
    world, made = WORLDS[name], rendered[name]
    objects = [(made["clips"], np.ones(COUNT, bool))]
    if made["clips"].other is not None:
        objects.append((made["clips"].other, made["clips"].pair))
    grid = np.arange(-2 * world.size, 3 * world.size)
    inside = (grid >= 0) & (grid < world.size)
    for clips, there in objects:
        for row in np.flatnonzero(there)[:100]:
            cover = coverage(world, clips, row, grid)
            cover[:, inside[:, None] & inside] = 0
            assert not cover.any()


def coverage(world, clips, row, grid=None):
    """Coverage [f y x] of one object, on a canvas of any size."""
    grid = np.arange(world.size) if grid is None else grid
    frames = []
    for frame, (y, x) in enumerate(clips.centre[row]):
        leg = int(frame >= world.turn)
        radius = world.radius * shapes_world.SIZES[world.sizes[clips.size[row]]]
        shape = world.shapes[clips.shape[row, leg]]
        frames.append(render.alpha(shape, radius, grid[:, None] - y, grid - x))
    return np.stack(frames)


@world_named
def test_pixels_are_the_shapes_blended_over_the_ground(name, rendered):
    world, made = WORLDS[name], rendered[name]
    clips = made["clips"]
    legs = (np.arange(world.frames) >= world.turn).astype(int)
    for row in range(20):
        ground = shapes_world.BACKGROUNDS[world.backgrounds[clips.background[row]]]
        video = np.broadcast_to(np.array(ground, float), (world.frames, world.size, world.size, 3))
        for layer in [clips] + [clips.other] * bool(clips.pair is not None and clips.pair[row]):
            colours = [shapes_world.COLOURS[world.colours[c]] for c in layer.colour[row, legs]]
            cover = coverage(world, layer, row)[..., None]
            video = video + cover * (np.array(colours, float)[:, None, None] - video)
        np.testing.assert_allclose(made["video"][row], video, atol=1)


def test_two_objects_never_touch(rendered):
    world, clips = WORLDS["pairs"], rendered["pairs"]["clips"]
    assert clips.pair.all()
    assert (clips.colour[:, 0] != clips.other.colour[:, 0]).all()
    for row in range(COUNT):
        both = coverage(world, clips, row) * coverage(world, clips.other, row)
        assert not both.any()


@pytest.mark.parametrize("then", [0.0, 1.0])
def test_held_out_combinations_are_never_trained_on(then):
    world = World(then=then)
    seen, held = world.combinations
    assert len(seen) + len(held) == 6 * 3 * 4
    assert not as_set(seen) & as_set(held)
    for split in ("train", "test"):
        clips = attributes.sample(world, split, np.arange(5000))
        shown = as_set(combinations(clips)) | as_set(combinations(clips, leg=1))
        assert shown == as_set(seen)
        assert then == clips.then.mean()
    held_clips = attributes.sample(world, "held_out", np.arange(1000))
    assert as_set(combinations(held_clips)) == as_set(held)
    assert not held_clips.then.any()


@pytest.mark.parametrize("world", [World(), World(colours=("red", "blue", "cyan", "white"))])
def test_every_pair_of_values_is_trained_on(world):
    values = (len(world.colours), len(world.shapes), len(world.directions))
    seen, held = world.combinations
    assert len(held) >= 3
    for axes in itertools.combinations(range(3), 2):
        every = as_set(itertools.product(*(range(values[axis]) for axis in axes)))
        assert as_set(seen[:, axes]) == every


def test_a_second_leg_changes_one_thing_at_most():
    world = World(then=1.0)
    clips = attributes.sample(world, "train", np.arange(2000))
    changed = (combinations(clips) != combinations(clips, leg=1)).sum(-1)
    assert set(changed) == {0, 1}
    assert 0.6 < changed.mean() < 0.85


WORDS = (
    r"(?P<size>small |large )?(?P<colour>\w+) (?P<shape>circle|square|triangle) "
    r"(?:moves|is moving|goes) (?P<direction>\w+)"
)


@world_named
def test_captions_are_true(name, rendered):
    world, made = WORLDS[name], rendered[name]
    clips, sized = made["clips"], 0
    for row, caption in enumerate(made["caption"]):
        phrases = [match.groupdict() for match in re.finditer(WORDS, caption)]
        if clips.pair is not None and clips.pair[row]:
            named = [(clips, 0), (clips.other, 0)]
        elif caption.startswith("then "):
            named = [(clips, 1)]
            assert clips.then[row]
        elif ", then " in caption:
            named = [(clips, 0), (clips, 1)]
            assert clips.then[row]
        else:
            named = [(clips, 0)]
            if clips.then[row]:  # nothing changes at the turn
                np.testing.assert_array_equal(*(combinations(clips, leg)[row] for leg in (0, 1)))
        assert len(phrases) == len(named), caption
        for phrase, (layer, leg) in zip(phrases, named, strict=True):
            assert phrase["colour"] == world.colours[layer.colour[row, leg]]
            assert phrase["shape"] == world.shapes[layer.shape[row, leg]]
            assert phrase["direction"] == world.directions[layer.direction[row, leg]]
            if phrase["size"]:
                assert phrase["size"].strip() == world.sizes[layer.size[row]]
                sized += 1
        if "background" in caption:
            ground = world.backgrounds[clips.background[row]]
            assert f"on a {ground} background" in caption
    assert bool(sized) == (len(world.sizes) > 1)  # a single size is not named


@world_named
def test_words_are_those_of_all_captions(name):
    world = WORLDS[name]
    made = render.render(world, "train", np.arange(500))["caption"]
    made += render.render_images(world, "train", np.arange(200))["caption"]
    assert set(" ".join(made).replace(",", " ").split()) == captions.words(world)


def test_some_colours_occur_in_images_only():
    world = World(still_colours=("orange", "purple"))
    images = render.render_images(world, "train", np.arange(2000))
    assert images["video"].shape == (2000, 1, 32, 32, 3)
    names = np.array(shapes_world.palette(world))[images["clips"].colour[:, 0]]
    assert 0.2 < np.isin(names, world.still_colours).mean() < 0.3
    assert set(names) == {*world.colours, *world.still_colours}
    for colour, caption in zip(names, images["caption"], strict=True):
        assert colour in caption.split()
    clips = attributes.sample(world, "train", np.arange(5000))
    assert clips.colour.max() < len(world.colours)
    reading = detector.read(world, images["video"][:COUNT])
    assert (reading.colour[:, 0] == images["clips"].colour[:COUNT, 0]).mean() >= 0.995


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(colours=("red", "pink")), r"world\.colours='pink' must be one of red, "),
        (dict(speed=3.0), r"world\.speed=3\.0 .* the fastest that stays inside is 1\.5"),
        (dict(radius=20.0), r"world\.radius=20\.0 px does not fit a 32 px .* is below 10\.42"),
    ],
)
def test_an_impossible_world_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        World(**fields)


# --- the detector


def judged(world, made, clips, leg, reading, combination=None):
    frames = slice(None)
    if made["clips"].then.any():
        frames = slice(0, world.turn) if leg == 0 else slice(world.turn, None)
    asked = combinations(clips, leg) if combination is None else combination
    walls = leg == 1 or world.wander > 0
    return detector.judge(world, reading, *asked.T, frames=frames, walls=walls)


@world_named
def test_the_detector_reads_the_truth(name, rendered, readings):
    world, made = WORLDS[name], rendered[name]
    clips = made["clips"]
    if clips.other is not None:  # "present" counts the other as foreign: test_two_objects.py
        for layer in (clips, clips.other):
            reading = detector.read(world, made["video"], layer.colour[:, 0])
            verdict = judged(world, made, layer, 0, reading)
            assert (verdict.colour & verdict.shape & verdict.direction).mean() >= 0.995
        return
    reading = readings[name]
    as_floats = detector.read(world, made["video"][:8] / 255.0)
    np.testing.assert_allclose(as_floats.centre, reading.centre[:8], atol=1e-4)
    shift = abs(reading.centre - clips.centre).max(-1)
    assert (shift < 0.5).mean() >= 0.995
    for leg in (0, 1):
        assert judged(world, made, clips, leg, reading).all.mean() >= 0.995


@pytest.mark.parametrize("name", ["16 px", "24 px", "32 px", "64 px"])
def test_the_detector_notices_what_is_wrong(name, rendered, readings):
    world, made = WORLDS[name], rendered[name]
    clips = made["clips"]
    reading = readings[name]
    right = combinations(clips)
    counts = (len(world.colours), len(world.shapes), len(world.directions))
    for axis, attribute in enumerate(("colour", "shape", "direction")):
        for shift in range(1, counts[axis]):
            wrong = right.copy()
            wrong[:, axis] = (wrong[:, axis] + shift) % counts[axis]
            verdict = judged(world, made, clips, 0, reading, wrong)
            assert getattr(verdict, attribute).mean() <= 0.005
            assert verdict.all.mean() <= 0.005


def test_the_detector_notices_nothing_and_too_much(rendered):
    world, made = WORLDS["32 px"], rendered["32 px"]
    clips, video = made["clips"], made["video"]
    empty = np.broadcast_to(video[:, :, :1, :1], video.shape)
    noise = np.random.default_rng(0).integers(256, size=video.shape).astype(np.uint8)
    blurred = (video + 3.0 * empty) / 4
    static = np.broadcast_to(video[:, :1], video.shape)
    plus = video.copy()
    plus[:, :, 22:30, 2:10] = np.array([170, 60, 220])  # a purple square in a corner
    world_with_purple = dataclasses.replace(world, still_colours=("purple",))
    for shown, where in ((empty, world), (noise, world), (plus, world_with_purple)):
        verdict = judged(where, made, clips, 0, detector.read(where, shown))
        assert verdict.present.mean() <= 0.1
        assert verdict.all.mean() <= 0.005 + 0.1 * (shown is plus)
    assert judged(world, made, clips, 0, detector.read(world, static)).direction.mean() == 0
    faint = judged(world, made, clips, 0, detector.read(world, blurred.astype(np.uint8)))
    assert faint.all.mean() <= 0.005
