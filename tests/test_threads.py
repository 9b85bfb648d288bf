"""One model in many threads: results, tokens, traces and caches are those of calls one by one."""

import os
import threading
import warnings

import jax
import numpy as np
import tiny
from absl import logging

from phenaki.data.format import open_set
from phenaki.data.shapes import tfds
from phenaki.data.shapes.world import World
from phenaki.io.quiet import no_logs, no_warnings, quiet
from phenaki.sampling.windows import windows
from phenaki.stories.generate import WindowCache, generate_windows
from phenaki.stories.storyboard import Shot, Storyboard
from phenaki.text import cache
from phenaki.text.vocabulary import ByteVocabulary

THREADS = 8


def in_threads(works):
    """The results of `works`, each in a thread of its own; all begin at once."""
    start, results = threading.Barrier(len(works)), [None] * len(works)

    def run(number):
        start.wait()
        try:
            results[number] = works[number]()
        except BaseException as error:  # shown by the comparison
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def equal(one, other) -> bool:
    same = jax.tree.structure(one) == jax.tree.structure(other)
    return same and jax.tree.all(jax.tree.map(np.array_equal, one, other))


def call(model, number):
    """Every product of calls that differ by thread: videos, tokens, traces."""
    sample = model.sample([f"a red circle {number}"], seed=number, trace=True)
    after = model.sample(["b"], seed=number, video=sample.video[:, -5:], trace=True)
    return tuple(sample), tuple(after)


def test_calls_at_once_give_what_calls_one_by_one_give():
    model = tiny.phenaki()
    serial = [call(model, number) for number in range(THREADS)]
    works = [lambda number=number: call(model, number) for number in range(THREADS)]
    for alone, at_once in zip(serial, in_threads(works), strict=True):
        assert equal(alone, at_once), at_once
    assert not equal(serial[0], serial[1])


def tell(model, folder, number):
    """The windows of a story that begins as those of all threads do, and ends in its own way."""
    shots = [Shot("a red circle", 1.4, seed=3), Shot(f"a blue square {number}", 0.7, seed=3)]
    plan = windows(shots, model.spec, 5)
    storyboard, store = Storyboard(shots, 5), WindowCache(folder)
    parts = generate_windows(model, storyboard, plan, store, lambda path: None)
    return [(part.frames, part.tokens) for part in parts]


def test_stories_at_once_keep_each_windows_own_tokens(tmp_path):
    model = tiny.phenaki()
    serial = [tell(model, tmp_path / "serial", number) for number in range(THREADS)]
    works = [lambda n=n: tell(model, tmp_path / "at once", n) for n in range(THREADS)]
    for alone, at_once in zip(serial, in_threads(works), strict=True):
        assert equal(alone, at_once), at_once
    kept = [sorted(path.name for path in (tmp_path / d).iterdir()) for d in ("serial", "at once")]
    assert kept[0] == kept[1] and len(kept[0]) == 1 + THREADS
    for name in kept[0]:
        one, other = (WindowCache(tmp_path / d).read(name[:-4]) for d in ("serial", "at once"))
        assert equal(one, other)


def test_a_thread_that_empties_the_cache_of_embeddings_takes_none_from_another(monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 0)

    def embed(ids):
        if others:  # another thread's call, between the look-up and the end of the first
            text(others.pop())
        return ids[..., None].astype(np.float32)

    text, others = cache.CachedText(ByteVocabulary(12), embed), []
    text(["known"])
    others = [["another"], ["known"], ["new"]]
    ids = ByteVocabulary(12).encode(["known", "new"])
    assert equal(text(["known", "new"]), {"text_ids": ids, "text": ids[..., None].astype("f4")})
    works = [lambda n=n: text([f"caption {n}", "shared"])["text_ids"] for n in range(THREADS)]
    for number, result in enumerate(in_threads(works)):
        assert equal(result, ByteVocabulary(12).encode([f"caption {number}", "shared"])), result


def test_stderr_is_back_after_blocks_that_two_threads_enter_at_once():
    inside, both, left = threading.Event(), threading.Event(), threading.Event()

    def first():
        with quiet():
            inside.set()
            both.wait(0.3)
        left.set()

    def second():
        inside.wait()
        with quiet():
            both.set()
            left.wait()

    before = os.fstat(2)
    in_threads([first, second])
    assert os.path.samestat(os.fstat(2), before)


def overlapping(block):
    """Two threads' blocks, of which the first to be entered is the first to be left."""
    inside, both, left = threading.Event(), threading.Event(), threading.Event()

    def first():
        with block():
            inside.set()
            both.wait()
        left.set()

    def second():
        inside.wait()
        with block():
            both.set()
            left.wait()

    return in_threads([first, second])


def test_warnings_are_seen_after_blocks_without_them_that_two_threads_enter_at_once(caplog):
    for block in (no_warnings, no_logs):
        before = warnings.filters.copy()
        assert overlapping(block) == [None, None]
        assert warnings.filters == before
        logging.warning("after %s", block.__name__)
    assert caplog.messages == ["after no_warnings", "after no_logs"]


def test_one_threads_block_without_logs_leaves_the_lines_of_the_others(caplog):
    inside, logged = threading.Event(), threading.Event()

    def hushed():
        with no_logs(), no_logs():
            logging.warning("of a library")
            logging.error("an error")
            inside.set()
            logged.wait()

    def other():
        inside.wait()
        logging.warning("of ours")
        logged.set()

    assert in_threads([hushed, other]) == [None, None]
    assert caplog.messages == ["an error", "of ours"]


def test_data_sets_that_are_opened_at_once_leave_later_warnings(tmp_path, caplog):
    shapes = [tfds.write(tmp_path / str(number), World(), 1, 1) for number in range(4)]
    level = logging.get_verbosity()
    for _ in range(5):
        in_threads([lambda one=one: open_set(one) for one in shapes])
    assert logging.get_verbosity() == level
    logging.warning("later")
    assert "later" in caplog.messages
