"""Batches: the same stream for any number of hosts, from any start."""

import contextlib
import threading

import numpy as np
import pytest
import tiny

from phenaki.data import batches
from phenaki.errors import UserError


def encode(captions):
    return {"text_ids": np.array([[len(caption or "")] for caption in captions], np.int32)}


def take(count, config, taken=0, **hosts):
    with contextlib.closing(batches.make(config, encode, **hosts)) as made:
        if taken:
            made.set_state({"taken": taken})
        return [next(made) for _ in range(count)], made.get_state()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for kind in one:
        assert one[kind].keys() == {"video", "text_ids"}
        for name in one[kind]:
            np.testing.assert_array_equal(one[kind][name], other[kind][name])


def test_hosts_split_one_stream():
    config = tiny.tokenizer_config(data=dict(image_batch=4))
    whole, _ = take(3, config)
    parts = [take(3, config, host=host, hosts=2)[0] for host in range(2)]
    assert whole[0]["video"]["video"].shape == (8, 11, 16, 16, 3)
    assert whole[0]["image"]["video"].shape == (4, 1, 16, 16, 3)
    for batch, *own in zip(whole, *parts, strict=True):
        joined = {
            kind: {name: np.concatenate([part[kind][name] for part in own]) for name in batch[kind]}
            for kind in batch
        }
        assert_same(batch, joined)
    assert np.any(whole[0]["video"]["video"] != whole[1]["video"]["video"])


def test_a_stream_continues_from_its_state():
    config = tiny.tokenizer_config(data=dict(image_batch=4))
    whole, state = take(5, config)
    assert state == {"taken": 5}
    rest, state = take(2, config, taken=3)
    assert state == {"taken": 5}
    for batch, again in zip(whole[3:], rest, strict=True):
        assert_same(batch, again)


def test_without_images_there_is_no_image_part():
    assert take(1, tiny.tokenizer_config())[0][0].keys() == {"video"}


def test_nothing_is_made_after_the_end():
    before = set(threading.enumerate())
    made = batches.make(tiny.tokenizer_config(), encode)
    next(made)
    made.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_errors_of_the_thread_are_raised_by_next():
    config = tiny.tokenizer_config()

    def refuse(captions):
        raise UserError(f"no captions like {captions[0]!r}")

    with (
        contextlib.closing(batches.make(config, refuse)) as made,
        pytest.raises(UserError, match="no captions like 'a "),
    ):
        next(made)


def test_an_unknown_source_names_the_known_ones():
    config = tiny.tokenizer_config(data=dict(source="moving_shape"))
    with pytest.raises(
        UserError, match=r"config\.data\.source='moving_shape' must be one of moving_shapes, tfds"
    ):
        batches.make(config, encode)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64])
def test_a_seed_that_keys_would_wrap_is_refused(seed):
    config = tiny.tokenizer_config()
    config.seed = seed
    line = rf"config\.seed={seed} must lie in \[0, 2\*\*32 - 1\]; nearest is "
    for call in (lambda: batches.make(config, encode), lambda: batches.world(config)):
        with pytest.raises(UserError, match=line):
            call()
