"""Clips with two objects: what they show, and how they are judged."""

import dataclasses

import numpy as np
import pytest

from phenaki.data.shapes import detector, render
from phenaki.data.shapes.world import COLOURS, World
from phenaki.evaluation import alignment, two_objects
from phenaki.pipeline import Phenaki

COUNT = 60
WORLDS = {
    "48 px": World(size=48, pair=1.0, subpixel=2, sizes=("large",)),
    "64 px": World(size=64, radius=10.0, speed=2.0, pair=0.4, then=0.5, sizes=("large",)),
}
named = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def as_floats(made):
    return made | {"video": made["video"].astype(np.float32) / 255}


@pytest.fixture(scope="module", params=WORLDS)
def truth(request):
    """A world, real clips with two objects each, and their prompts."""
    world = WORLDS[request.param]
    pairs = dataclasses.replace(world, then=0.0, pair=1.0)
    made = as_floats(render.render(pairs, "test", np.arange(COUNT)))
    return pairs, made, two_objects.prompts(world, "test", COUNT)


def test_prompts_are_the_captions_of_clips_with_two(truth):
    _, made, prompts = truth
    assert prompts.texts == made["caption"]
    assert all(" and a " in text for text in prompts.texts)
    for objects, asked in zip(
        (made["clips"], made["clips"].other), prompts.combinations, strict=True
    ):
        shown = [x[:, 0] for x in (objects.colour, objects.shape, objects.direction)]
        np.testing.assert_array_equal(np.stack(shown, 1), asked)


def test_truth_is_right_in_every_attribute(truth):
    world, made, prompts = truth
    found = two_objects.verdict(world, made["video"], prompts)
    for field in dataclasses.fields(found):
        assert getattr(found, field.name).all()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("axis, name", [(0, "colour"), (1, "shape"), (2, "direction")])
def test_one_wrong_object_makes_a_clip_wrong(truth, which, axis, name):
    world, made, prompts = truth
    asked = [combination.copy() for combination in prompts.combinations]
    number = len((world.colours, world.shapes, world.directions)[axis])
    asked[which][:, axis] = (asked[which][:, axis] + 1) % number
    if name == "colour":  # one that the clip does not show
        same = asked[0][:, 0] == asked[1][:, 0]
        asked[which][same, 0] = (asked[which][same, 0] + 1) % number
    found = two_objects.verdict(
        world, made["video"], two_objects.Prompts(prompts.texts, tuple(asked))
    )
    assert getattr(found, name).mean() <= 0.005
    assert found.all.mean() <= 0.005


def test_one_object_and_three_objects_are_not_two(truth):
    world, made, prompts = truth
    single = as_floats(
        render.render(dataclasses.replace(world, pair=0.0), "test", np.arange(COUNT))
    )
    assert two_objects.verdict(world, single["video"], prompts).all.mean() == 0
    shown = {*np.unique(prompts.combinations[0][0, 0]), *np.unique(prompts.combinations[1][0, 0])}
    other = next(c for c in range(len(world.colours)) if c not in shown)
    third = made["video"][:1].copy()
    side = 2 * int(world.radius)
    third[:, :, :side, -side:] = np.array(COLOURS[world.colours[other]]) / 255
    found = two_objects.verdict(
        world,
        third,
        two_objects.Prompts(prompts.texts[:1], tuple(c[:1] for c in prompts.combinations)),
    )
    assert not found.present.any()


@named
def test_no_second_object_is_a_combination_that_is_held_out(world):
    seen, held = world.combinations
    kept = {tuple(row) for row in held}
    for split in ("train", "test"):
        prompts = two_objects.prompts(dataclasses.replace(world, pair=1.0), split, 4000)
        shown = {tuple(row) for asked in prompts.combinations for row in asked}
        assert not shown & kept
        assert shown == {tuple(row) for row in seen}
    never = two_objects.prompts(world, "held_out", 200)
    assert {tuple(row) for row in never.combinations[0]} <= kept


def test_training_scores_count_pairs_where_the_world_has_them(monkeypatch):
    world = WORLDS["64 px"]
    asked = []

    def sample(model, texts, seed, **options):
        asked.append(list(texts))
        return np.zeros((len(texts), 3, 64, 64, 3), np.float32)

    class Model(Phenaki):
        def __init__(self):
            pass

        def reconstruct(self, video):
            return video

    monkeypatch.setattr(alignment, "sample", sample)
    monkeypatch.setattr(alignment, "stories", lambda *given, **options: [])
    monkeypatch.setattr(alignment, "_mean_of_scenes", lambda scores: {})
    found = alignment.measure(Model(), world, 4)
    assert set(found) == {"ceiling", "seen", "held_out", "pair", "story"}
    assert found["pair"]["all"] == 0
    assert all(" and a " in text for text in asked[-1])
    found = alignment.measure(Model(), dataclasses.replace(world, pair=0.0), 4)
    assert "pair" not in found


def test_a_reading_of_one_colour_counts_the_others_as_foreign():
    world = dataclasses.replace(WORLDS["64 px"], then=0.0, pair=1.0)
    made = render.render(world, "test", np.arange(8))
    colour = made["clips"].colour[:, 0]
    reading = detector.read(world, made["video"], colour)
    assert (reading.foreign > 0.1).all()
    alone = render.render(dataclasses.replace(world, pair=0.0), "test", np.arange(8))
    assert (detector.read(world, alone["video"], colour).foreign == 0).all()
