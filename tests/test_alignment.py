"""How prompts are grouped when samples are scored, and how clear clips without text are."""

import numpy as np
import pytest

from phenaki.data.shapes import render
from phenaki.data.shapes.world import World
from phenaki.evaluation import alignment


@pytest.mark.parametrize("count", [1, 49, 50, 51, 120, 200])
def test_groups_are_of_one_size_and_cover_every_row(count):
    sizes = []

    def make(rows):
        made = np.arange(1000)[rows]
        sizes.append(len(made))
        return made

    np.testing.assert_array_equal(alignment._in_groups(make, count), np.arange(count))
    assert len(set(sizes)) == 1


def test_clarity_is_of_clips_whatever_they_show():
    """Of true clips nearly all; of clips that do not move, no direction; of noise nothing."""
    world = World(size=32, radius=5.0, sizes=("large",))
    video = render.render(world, "test", np.arange(12))["video"].astype(np.float32) / 255
    found = alignment.clarity(world, video)
    assert found["all"] == found["direction"] == 1.0
    frozen = alignment.clarity(world, np.repeat(video[:, :1], video.shape[1], 1))
    assert (frozen["direction"], frozen["colour"], frozen["present"]) == (0.0, 1.0, 1.0)
    noise = np.random.default_rng(0).random(video.shape, np.float32)
    assert alignment.clarity(world, noise)["all"] == 0.0
