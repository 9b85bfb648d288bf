"""Sampling on many devices gives what one device gives."""

import numpy as np
import pytest
import tiny

from phenaki import sharding
from phenaki.errors import UserError
from phenaki.pipeline import Phenaki

PROMPTS = [f"a {colour} circle moves {way}" for colour in ("red", "blue") for way in ("left", "up")]


@pytest.fixture(scope="module")
def both():
    """The same model on one device and on eight."""
    alone = tiny.phenaki()
    spread = Phenaki(alone.config, alone.params)
    spread.shard(sharding.make_mesh(data=2, fsdp=4, tensor=1), sharding.shardings)
    return alone, spread


def test_64_prompts_over_8_devices_give_the_same_tokens(both):
    videos = [model.generate(16 * PROMPTS, seed=3) for model in both]
    one, eight = (np.asarray(model.tokens) for model in both)
    np.testing.assert_array_equal(one, eight)
    assert len(np.unique(one, axis=0)) > 60  # no two rows alike, so none can stand for another
    np.testing.assert_allclose(*videos, atol=1e-5)
    tokens = both[1].tokens
    assert {shard.data.shape[0] for shard in tokens.addressable_shards} == {8}
    kernel = both[1].params["maskgit"]["transformer"]["layers"]["wi"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4


def test_a_number_of_prompts_that_does_not_divide_names_the_nearest(both):
    with pytest.raises(UserError, match="12 samples must be a multiple .* nearest is 16"):
        both[1].generate(3 * PROMPTS, seed=0)
