"""How much samples of a prompt differ, on clips whose differences are known."""

import numpy as np
import pytest

from phenaki.data.shapes.world import World
from phenaki.evaluation import diversity
from phenaki.features import resize


@pytest.mark.parametrize("size", [4, 8, 28, 32, 45])
def test_images_of_any_size_are_averaged_over_equal_cells(size):
    cells = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    # Each cell as `size` by `size` pixels, then each pixel as the mean of 8 by 8 of those.
    fine = cells.repeat(size, 1).repeat(size, 2)
    images = fine.reshape(2, size, 8, size, 8, 3).mean((2, 4))
    pooled = resize.area(images, (8, 8))
    assert pooled.mean() == pytest.approx(cells.mean(), rel=1e-5)
    if size % 8 == 0:  # no pixel lies in two cells
        np.testing.assert_allclose(pooled, cells, rtol=1e-5)
    elif size > 8:
        assert np.corrcoef(pooled.ravel(), cells.ravel())[0, 1] > 0.9
    else:  # a pixel for every four cells
        np.testing.assert_allclose(pooled, images.repeat(2, 1).repeat(2, 2), rtol=1e-5)


@pytest.mark.parametrize("size", [28, 32])
def test_one_clip_over_and_over_is_told_from_real_ones(size):
    world = World(size=size, radius=0.19 * size)
    seen = np.array([[2, 0, 1], [1, 1, 1]])
    real = diversity.real_clips(world, 12, seen)
    same = real[[0] * 12 + [12] * 12]
    true, lone = (diversity.of_prompts(world, clips, 2) for clips in (real, same))
    assert lone == {"start_px": 0, "start_bits": 0, "ground_bits": 0}
    assert true["start_px"] > 0.1 * size and min(true["start_bits"], true["ground_bits"]) > 1
    assert diversity.pixel_distance(real, real) == pytest.approx(0, abs=1e-3)
    assert diversity.pixel_distance(same, real) > 0.3
