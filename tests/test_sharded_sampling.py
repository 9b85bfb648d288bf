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
    return alone, spread.shard(sharding.make_mesh(data=2, fsdp=4, tensor=1))


def test_64_prompts_over_8_devices_give_the_same_tokens(both, monkeypatch):
    decoded, sample_tokens = [], both[1]._sample_tokens

    def watched(*inputs, **static):
        decoded.append(sample_tokens(*inputs, **static))
        return decoded[-1]

    monkeypatch.setattr(both[1], "_sample_tokens", watched)
    one, eight = (model.sample(16 * PROMPTS, seed=3) for model in both)
    np.testing.assert_array_equal(one.tokens, eight.tokens)
    # No two rows are alike, so that none can be another's.
    assert len(np.unique(one.tokens, axis=0)) > 60
    np.testing.assert_allclose(one.video, eight.video, atol=1e-5)
    assert {shard.data.shape[0] for shard in decoded[0].tokens.addressable_shards} == {8}
    kernel = both[1].params["maskgit"]["transformer"]["layers"]["wi"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4


def test_a_number_of_prompts_that_does_not_divide_names_the_nearest(both):
    with pytest.raises(UserError, match="12 samples must be a multiple .* nearest is 16"):
        both[1].generate(3 * PROMPTS, seed=0)


def test_padded_rows_change_no_sample(both):
    alone, spread = both
    padded = Phenaki(spread.config, spread.params).shard(spread.mesh, pad=True)
    prompts = 3 * PROMPTS
    one, eight = (model.sample(prompts, seed=3, trace=True) for model in (alone, padded))
    np.testing.assert_array_equal(one.tokens, eight.tokens)
    np.testing.assert_array_equal(one.trace.history, eight.trace.history)
    assert eight.video.shape[0] == 12
    np.testing.assert_array_equal(padded.encode(one.video), alone.encode(one.video))
    np.testing.assert_allclose(
        padded.reconstruct(one.video), alone.reconstruct(one.video), atol=1e-5
    )
