"""Batches: the same stream for any mesh and number of hosts, from any start."""

import contextlib
import threading

import numpy as np
import pytest
import tiny

from phenaki.data import batches
from phenaki.data.host_rows import host_rows
from phenaki.errors import UserError


def encode(captions):
    return {"text_ids": np.array([[len(caption or "")] for caption in captions], np.int32)}


def take(count, config, state=None, rows=None):
    with contextlib.closing(batches.make(config, encode, rows)) as made:
        if state:
            made.set_state(state)
        return [next(made) for _ in range(count)], made.get_state()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for kind in one:
        assert one[kind].keys() == {"video", "text_ids"}
        for name in one[kind]:
            np.testing.assert_array_equal(one[kind][name], other[kind][name])


def test_hosts_split_one_stream_or_load_the_same_of_it():
    config = tiny.tokenizer_config(data=dict(image_batch=4))
    whole, _ = take(3, config)
    # Two hosts have each row: devices of hosts 0 and 2, and of 1 and 3, share samples.
    mesh = np.array([[0, 2], [1, 3]]).reshape(2, 1, 2, 1)
    parts = []
    for host in range(4):
        rows = {kind: host_rows(n, mesh, host) for kind, n in (("video", 8), ("image", 4))}
        parts.append(take(3, config, rows=rows)[0])
    for host in (0, 1):
        for one, other in zip(parts[host], parts[host + 2], strict=True):
            assert_same(one, other)
    parts = parts[:2]
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
    whole, end = take(5, config)
    assert end == {"taken": 5, "examples": {"video": 40, "image": 20}}
    _, state = take(3, config)
    rest, last = take(2, config, state)
    assert last == end
    for batch, again in zip(whole[3:], rest, strict=True):
        assert_same(batch, again)


def test_a_state_of_an_earlier_version_counts_batches_of_todays_size():
    config = tiny.tokenizer_config(data=dict(image_batch=4))
    _, state = take(3, config)
    (new,), _ = take(1, config, state)
    (old,), end = take(1, config, {"taken": 3})
    assert_same(new, old)
    assert end == {"taken": 4, "examples": {"video": 32, "image": 16}}


def test_after_batches_of_another_size_no_example_is_lost_or_repeated():
    sizes = [(8, 4), (6, 0), (2, 8)]  # clips, images; for two steps each
    seen, state = {"video": [], "image": []}, None
    for clips, images in sizes:
        config = tiny.tokenizer_config(data=dict(batch=clips, image_batch=images))
        made, state = take(2, config, state)
        for batch in made:
            for kind, part in batch.items():
                seen[kind].append(part["video"])
    assert state["examples"] == {"video": 32, "image": 24} and state["taken"] == 6
    whole, _ = take(1, tiny.tokenizer_config(data=dict(batch=32, image_batch=24)))
    for kind, parts in seen.items():
        np.testing.assert_array_equal(np.concatenate(parts), whole[0][kind]["video"])


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
