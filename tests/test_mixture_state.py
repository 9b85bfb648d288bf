"""Runs that resume with other data sets, rates or batch sizes: no example is lost or repeated."""

import collections
import contextlib
import shutil

import clip_sets
import numpy as np
import pytest
from ml_collections import ConfigDict
from numbered_clips import numbered, read_number

from phenaki.data import batches, format, token_files
from phenaki.data.clip_records import ClipSize
from phenaki.data.host_rows import HostRows
from phenaki.data.mixture_state import MixtureState, Source, follow

SIZES = {"a": 12, "b": 8, "c": 5}
FIRST = {"a": 0, "b": 100, "c": 200}


VIDEO = dict(frames=1, height=48, width=64, fps=8.0)
NONE = token_files.Caption(b"", np.zeros(0, np.int32), None)
ORIGIN = token_files.Origin.of("made up", ClipSize(**VIDEO), None)


def write(directory, first, count):
    """Stored tokens of images: each has one token, its number, from `first` on."""
    directory.mkdir()
    rows = [
        token_files.example(np.array([n], np.uint16), [NONE], False, b"", ORIGIN.digest())
        for n in range(first, first + count)
    ]
    path = str(directory / "clips-image_train.tfrecord-00000-of-00001")
    token_files.write_file(path, rows, ORIGIN, "")
    token_files.finish(
        str(directory), {"image_train": [path]}, ORIGIN, token_files.Sizes(1, 1, 0, 0)
    )


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name, count in SIZES.items():
        write(root / name, FIRST[name], count)
    shutil.copytree(root / "a", root / "moved")
    write(root / "again", FIRST["a"], 10)
    return root


def read(sets, text, steps, state=None, before=None, rows=None, **fields):
    """(numbers of each example, state) of `steps` batches of "a=0.5,b=0.5" below `sets`."""
    data = dict(source="codes", sources=where(sets, text), image_sources="", batch=0, image_batch=4)
    config = ConfigDict(dict(seed=0, data=data, video=VIDEO, fingerprint="made up"))
    config.data.update(fields)
    with contextlib.closing(batches.make(config, lambda captions: {}, rows)) as made:
        if state:
            made.set_state(state, before)
        parts = [part for _ in range(steps) for part in next(made).values()]
        return [number(row) for part in parts for row in part[VALUES[config.data.source]]], (
            made.get_state()
        )


VALUES = {"codes": "tokens", "tfds": "video"}


def number(row):
    """What a row of stored tokens, or an image, shows."""
    return int(row[0]) if row.ndim == 1 else read_number(row[0])


def where(sets, text):
    return ",".join(f"{sets}/{part}" for part in text.split(","))


def of(name, numbers):
    """Those of `numbers` that the data set shows."""
    return [n for n in numbers if 0 <= n - FIRST[name] < 100]


def assert_whole_epochs(name, numbers, count=None):
    """No number of a data set twice in an epoch, and none missing."""
    mine, count = of(name, numbers), count or SIZES[name]
    for start in range(0, len(mine), count):
        epoch = mine[start : start + count]
        assert len(set(epoch)) == len(epoch), f"{name}: {epoch}"
    assert len(set(mine)) == min(count, len(mine))


# After "a=0.5,b=0.5" in batches of four: sources, and other fields.
CHANGES = {
    "nothing": ("a=0.5,b=0.5", {}),
    "larger batches": ("a=0.5,b=0.5", dict(image_batch=6)),
    "the same images as clips of one frame": ("a=0.5,b=0.5", dict(batch=4, image_batch=0)),
    "other rates": ("a=0.8,b=0.2", {}),
    "rates of the same ratio": ("a=3,b=3", {}),
    "another order": ("b=0.5,a=0.5", {}),
    "one set less": ("b", {}),
    "one set more": ("a=0.4,b=0.3,c=0.3", {}),
    "a new set in front": ("c=0.2,a=0.5,b=0.3", {}),
    "a set at another path": ("moved=0.5,b=0.5", {}),
    "another path and other rates": ("b=0.4,moved=0.6", {}),
}


UNCHANGED = ("nothing", "larger batches", "rates of the same ratio", "a set at another path")


@pytest.mark.parametrize("change", CHANGES)
def test_every_set_continues_where_it_was(sets, change, caplog):
    text, fields = CHANGES[change]
    before, state = read(sets, "a=0.5,b=0.5", 4)
    after, state = read(sets, text, 6, state, **fields)
    names = [part.partition("=")[0].replace("moved", "a") for part in text.split(",")]
    # Images that are read as clips are another kind, with examples of their own.
    if "batch" in fields:
        assert_whole_epochs("a", after)
        return
    for name in names:
        assert_whole_epochs(name, before + after)
    rates = [float(part.partition("=")[2] or 1) for part in text.split(",")]
    counts = [len(of(name, after)) for name in names]
    wanted = np.array(rates) / sum(rates) * len(after)
    assert np.abs(counts - wanted).max() <= 3
    assert (change in UNCHANGED) != ("instead of" in caplog.text)
    # A second change, back to the first mixture.
    last, _ = read(sets, "a=0.5,b=0.5", 4, state)
    for name in ("a", "b"):
        assert_whole_epochs(name, before + after + last)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """The sets "a" and "b" as images of their numbers."""
    root, form = tmp_path_factory.mktemp("pixels"), format.ClipFormat(3, 5.0, 48, 64, "png")
    for name in ("a", "b"):
        records = []
        for n in range(FIRST[name], FIRST[name] + SIZES[name]):
            image = format.encode(numbered(n)[None], "png")
            records.append(format.ClipRecord(str(n), image, None, "", "", (48, 64), 0.0, 0.0))
        clip_sets.write(root / name, form, {"image_train": records})
    return root


@pytest.mark.parametrize("source", ["codes", "tfds"])
def test_a_changed_mixture_resumes_anywhere_on_any_host(sets, pixels, source):
    """Also where stored tokens take the place of the images that were read before."""
    _, state = read(pixels, "a=0.5,b=0.5", 3, source="tfds")
    where, rates = (sets if source == "codes" else pixels), "a=0.8,b=0.2"
    whole, _ = read(where, rates, 7, state, source=source)
    one, three = (HostRows(4, rows) for rows in ((2,), (0, 1, 3)))
    first, middle = read(where, rates, 3, state, rows={"image": three}, source=source)
    rest, _ = read(where, rates, 4, middle, rows={"image": one}, source=source)
    assert rest == whole[14::4]
    assert first == [n for place, n in enumerate(whole[:12]) if place % 4 != 2]


def test_a_set_that_was_prepared_again_is_read_from_its_start(sets, tmp_path, caplog):
    shutil.copytree(sets / "a", tmp_path / "a")
    shutil.copytree(sets / "b", tmp_path / "b")
    before, state = read(tmp_path, "a=0.5,b=0.5", 2)
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(sets / "again", tmp_path / "a")
    after, _ = read(tmp_path, "a=0.5,b=0.5", 6, state)
    assert_whole_epochs("a", after, 10)
    assert_whole_epochs("b", before + after)
    assert f"read from the start: {tmp_path}/a." in caplog.text


def test_checkpoints_of_earlier_versions_continue_by_the_runs_own_config(sets):
    before, state = read(sets, "a=0.5,b=0.5", 4)
    data = dict(source="codes", sources=where(sets, "a=0.5,b=0.5"), batch=0, image_batch=4)
    for old in ({"taken": 4}, {"taken": 4, "examples": state["examples"]}):
        after, end = read(sets, "b=0.5,a=0.5", 3, old, data, image_batch=8)
        assert end["examples"]["image"] == 16 + 24
        for name in ("a", "b"):
            assert_whole_epochs(name, before + after)


def test_sets_instead_of_moving_shapes_are_read_from_their_start(sets):
    state = {"taken": 7, "examples": {"video": 0, "image": 28}}
    data = dict(source="moving_shapes", sources="", batch=0, image_batch=4)
    numbers, _ = read(sets, "a", 3, state, data)
    assert sorted(numbers) == list(range(12))


def test_a_kind_that_pauses_continues_after_its_last_example(sets):
    _, state = read(sets, "a", 2)
    _, paused = read(sets, "a", 2, state, batch=4, image_batch=0)
    assert paused["examples"] == {"video": 8, "image": 8}
    numbers, _ = read(sets, "a", 1, paused)
    whole, _ = read(sets, "a", 3)
    assert numbers == whole[8:]


def test_no_source_of_a_mixture_takes_the_place_of_another():
    """Sets of equal size at unknown paths are taken in their order, each once."""
    before = MixtureState(
        0, (Source("x", 0.5, 10, 0), Source("y", 0.5, 10, 1), Source("z", 1.0, 3, 2))
    )
    now = [Source("v", 0.5, 10, 0), Source("w", 0.5, 10, 1), Source("z", 1.0, 3, 2)]
    assert follow(before, now, 100, 0) == MixtureState(0, tuple(now))
    one_new = [*now, Source("u", 0.5, 10, 3)]
    after = follow(before, one_new, 100, 0)
    assert [source.index for source in after.sources] == [0, 1, 2, 3]
    assert after.since == 100 == sum(source.taken for source in after.sources)
    assert after.sources[3].taken == 0
    counts = collections.Counter()
    for place, count in enumerate(before.taken(2001, 0)):
        counts[place] += count
    assert [round(counts[place] / 1000.5, 1) for place in range(3)] == [0.5, 0.5, 1.0]
