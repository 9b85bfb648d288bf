"""The stream of examples: deterministic, the same for any number of hosts, started anywhere."""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import clip_sets
import numpy as np
import pytest
from numbered_clips import numbered, read_number
from PIL import Image

from phenaki.data import clip_records, clips, format, records, tensorflow
from phenaki.data import mixture as mixing
from phenaki.data.host_rows import HostRows
from phenaki.data.shapes import render, tfds
from phenaki.data.shapes import world as shapes_world
from phenaki.errors import UserError

COUNT = 23


@dataclasses.dataclass(frozen=True)
class Spec:
    frames: int = 5
    height: int = 48
    width: int = 64
    fps: float = 8.0


def write(directory, first: int, count: int, encoding: str = "png", noise: bool = False):
    """A data set whose clip n shows the number `first` + n; every third clip has no caption."""
    random = np.random.default_rng(first)
    stored = {"video_train": [], "image_train": []}
    for n in range(first, first + count):
        images = np.stack([numbered(n)] * 5)
        if noise:
            images = random.integers(0, 256, images.shape, np.uint8)
        caption = None if n % 3 == 0 else f"number {n}"
        for kind, video in (("video", images), ("image", images[:1])):
            encoded = format.encode(video, encoding)
            record = format.ClipRecord(f"{n}", encoded, caption, "", "", (48, 64), 0.0, 8.0)
            stored[f"{kind}_train"].append(record)
    return clip_sets.write(directory, format.ClipFormat(5, 8.0, 48, 64, encoding), stored, 7)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "set", 0, COUNT)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "other", 100, 5)


def take(sources, count: int, **changes) -> list[dict]:
    given = dict(split="train", kind="video", spec=Spec(), seed=3) | changes
    return list(itertools.islice(clips.examples(sources, **given), count))


def shown(examples) -> list[int]:
    return [read_number(example["video"][0]) for example in examples]


def test_examples_are_clips_with_captions_or_none(data):
    for example in take(data, COUNT):
        number = read_number(example["video"][0])
        assert example["video"].shape == (5, 48, 64, 3) and example["video"].dtype == np.uint8
        assert example["caption"] == (None if number % 3 == 0 else f"number {number}")
    assert take(data, 1, kind="image")[0]["video"].shape == (1, 48, 64, 3)


def test_each_epoch_shows_each_clip_once_in_a_new_order(data):
    numbers = shown(take(data, 3 * COUNT))
    epochs = [numbers[k * COUNT : (k + 1) * COUNT] for k in range(3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, list(range(COUNT))]}) == 4


def test_the_seed_decides_the_order(data):
    assert shown(take(data, COUNT)) == shown(take(data, COUNT))
    assert shown(take(data, COUNT)) != shown(take(data, COUNT, seed=4))


@pytest.mark.parametrize("start", [1, COUNT - 1, COUNT, 2 * COUNT + 5])
def test_resume_equals_uninterrupted(data, other, start):
    spec = Spec(frames=3, height=32, width=32)  # random parts must be the same, too
    for sources in (data, {str(data): 0.7, str(other): 0.3}):
        whole = take(sources, start + 20, spec=spec)
        rest = take(sources, 20, spec=spec, start=start)
        for expected, got in zip(whole[start:], rest, strict=True):
            np.testing.assert_array_equal(got["video"], expected["video"])
            assert got["caption"] == expected["caption"]


def test_starting_far_away_reads_nothing_before(data, monkeypatch):
    read = []
    monkeypatch.setattr(clips.Records, "__getitem__", count_reads(read))
    take(data, 1, start=10**12)
    assert 0 < len(read) < 200


def count_reads(read: list, original=clips.Records.__getitem__):
    def getitem(self, index: int) -> bytes:
        read.append(index)
        return original(self, index)

    return getitem


@pytest.mark.parametrize("rows", [(0, 1), (2, 3, 4), (5,), (0, 3, 4), tuple(range(6))])
def test_a_host_reads_its_rows_of_every_batch(data, other, rows):
    sources = {str(data): 0.6, str(other): 0.4}
    single = shown(take(sources, 36))
    mine = HostRows(6, rows)
    batches = np.array(single[:30]).reshape(5, 6)
    assert shown(take(sources, 5 * len(rows), rows=mine)) == batches[:, list(rows)].ravel().tolist()
    # A batch may start anywhere: the run before had batches of another size.
    later = np.array(single[4:34]).reshape(5, 6)[:, list(rows)]
    assert shown(take(sources, 5 * len(rows), rows=mine, start=4)) == later.ravel().tolist()


def test_a_mixture_keeps_its_rates_exactly(data, other):
    sources = {str(data): 4, str(other): 1}
    drawn = collections.Counter(n >= 100 for n in shown(take(sources, mixing.PERIOD, kind="image")))
    assert drawn == {False: 800, True: 200}


@pytest.mark.parametrize("rates", [[1.0, 1.0], [4.0, 1.0], [0.8, 0.1, 0.1]])
def test_every_step_has_nearly_the_rates(rates):
    pattern = np.tile(mixing.pattern(rates, 0), 3)
    for step in pattern[: 100 * (len(pattern) // 100)].reshape(-1, 100):
        counts = np.bincount(step, minlength=len(rates))
        assert (abs(counts - np.array(rates) / sum(rates) * 100) <= 1.5).all()


def test_without_shuffle_the_stored_order_is_read(data):
    assert shown(take(data, COUNT, shuffle=False)) == list(range(COUNT))
    assert clip_records.size(data, "train", "video") == COUNT
    assert clip_records.size(data, "validation", "video") == 0


def test_random_crops_are_crops(tmp_path):
    directory = write(tmp_path / "noise", 0, 4, noise=True)
    (whole,) = take(directory, 1, shuffle=False)
    spec = Spec(frames=3, height=40, width=40)
    corners = set()
    for example in take(directory, 60, spec=spec):
        part = example["video"]
        assert part.shape == (3, 40, 40, 3)
        windows = np.lib.stride_tricks.sliding_window_view(whole["video"][..., 0], (3, 40, 40))
        found = np.argwhere((windows[..., 0, 0, :4] == part[0, 0, :4, 0]).all(-1))
        corners |= {tuple(map(int, c)) for c in found if (windows[tuple(c)] == part[..., 0]).all()}
    assert {c[0] for c in corners} == {0, 1, 2}
    assert len(corners) > 10
    (centre,) = take(directory, 1, spec=spec, shuffle=False)
    np.testing.assert_array_equal(centre["video"], whole["video"][:3, 4:44, 12:52])


def test_jpeg_is_decoded_as_pillow_does(tmp_path):
    directory = write(tmp_path / "jpeg", 0, 2, encoding="jpeg", noise=True)
    (example,) = take(directory, 1, shuffle=False)
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (5, 48, 64, 3), np.uint8)
    expected = [np.asarray(Image.open(io.BytesIO(e))) for e in format.encode(first, "jpeg")]
    np.testing.assert_array_equal(example["video"], expected)


def test_tasks_and_mixture_are_registered(data):
    seqio = tensorflow.seqio()
    for _ in range(2):  # a second config may use the name again
        clips.register("shapes", data, "video", "train", Spec(), seed=0)
    mixture = seqio.MixtureRegistry.get("shapes")
    assert [task.name for task in mixture.tasks] == ["shapes:0"]
    assert set(mixture.output_features) == {"video", "text", "captioned"}
    dataset = mixture.get_dataset(shuffle=False, try_in_mem_cache=False)
    assert next(dataset.as_numpy_iterator())["video"].dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(split="test"), "has no split video_test; it has image_train, video_train"),
        (dict(spec=Spec(height=64)), "clips of 48x64 pixels; config.video wants 64x64"),
        (dict(spec=Spec(frames=7)), "Prepare the data with --frames=7"),
        (dict(spec=Spec(frames=6)), "6 are needed. Prepare the data with --frames=7"),
        (dict(spec=Spec(fps=6.0)), "Prepare the data with --fps=6"),
    ],
)
def test_data_that_does_not_fit_is_refused(data, change, reason):
    with pytest.raises(UserError, match=reason):
        take(data, 1, **change)


def test_sources_that_are_no_data_sets_are_refused(data, tmp_path):
    with pytest.raises(UserError, match="not a data set"):
        take(tmp_path, 1)
    for rates in ({}, {str(data): 0.0}, {str(data): float("nan")}):
        with pytest.raises(UserError, match="rates above 0"):
            take(rates, 1)


def damage(path, number: int) -> None:
    """Flips a bit in the middle of a record."""
    stored = records.Records([path])
    at = int(stored._offset[number] + stored._length[number] // 2)
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_a_damaged_record_is_replaced_by_the_next_one(data, tmp_path, caplog):
    directory = tmp_path / "set"
    shutil.copytree(data, directory)
    shard = directory / "clips-video_train.tfrecord-00001"  # of seven clips: 7 to 13
    damage(shard, 2)
    calm, harmed = shown(take(data, 2 * COUNT)), shown(take(directory, 2 * COUNT))
    assert calm.count(9) == 2 and harmed == [10 if number == 9 else number for number in calm]
    logged = [line for line in caplog.messages if "corrupt" in line]
    assert logged == [
        f"{shard}: record 2 is corrupt; write the data set again. It is replaced by the next "
        "record."
    ]
    with pytest.raises(records.Damaged, match="00001: record 2 is corrupt"):
        records.Records([shard])[2]
    for number in range(7):
        if number != 2:
            damage(shard, number)
    with pytest.raises(records.Damaged, match="is corrupt"):
        records.Records([shard]).take([0])


def test_a_damaged_record_is_named_once_however_many_threads_read_it(data, tmp_path, caplog):
    directory = tmp_path / "set"
    shutil.copytree(data, directory)
    shard = directory / "clips-video_train.tfrecord-00001"
    damage(shard, 2)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            records.Records([shard]).take([2] * 64)
    finally:
        sys.setswitchinterval(interval)
    assert len([line for line in caplog.messages if "corrupt" in line]) == 20


def test_streams_are_opened_one_at_a_time(data, monkeypatch):
    """seqio's registries are global, and tracing in two threads fails in Python 3.11."""
    seqio, inside, most = tensorflow.seqio(), [], []

    def slowly(original):
        def call(*args, **kwargs):
            inside.append(None)
            time.sleep(0.01)
            most.append(len(inside))
            try:
                return original(*args, **kwargs)
            finally:
                inside.pop()

        return call

    monkeypatch.setattr(seqio.TaskRegistry, "add", slowly(seqio.TaskRegistry.add))
    monkeypatch.setattr(seqio.Mixture, "get_dataset", slowly(seqio.Mixture.get_dataset))
    kinds = ["video", "image"]
    with concurrent.futures.ThreadPoolExecutor(len(kinds)) as pool:
        found = list(pool.map(lambda kind: shown(take(data, 5, kind=kind)), kinds))
    assert most == [1] * 4
    assert found == [shown(take(data, 5, kind=kind)) for kind in kinds]


def test_a_cut_shard_is_refused(tmp_path):
    directory = write(tmp_path / "set", 0, 3)
    shard = next(directory.glob("*video_train*"))
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match="truncated or not a TFRecord file"):
        take(directory, 1)


def test_a_process_ends_though_its_stream_is_open(data):
    """TensorFlow's threads are inside Python all the time."""
    code = "\n".join(
        (
            "from phenaki.data import clips",
            "from test_seqio_source import Spec",
            "given = dict(split='train', kind='video', spec=Spec(), seed=3)",
            f"stream = clips.examples({str(data)!r}, **given)",
            "print(*[next(stream)['video'].shape for _ in range(3)])",
        )
    )
    root = Path(__file__).parents[1]
    path = os.pathsep.join(str(root / name) for name in (".", "tests", "tests/helpers"))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(5, 48, 64, 3)") == 3


def test_moving_shapes_is_a_tfds_builder(tmp_path):
    assert tensorflow.datasets().builder_cls("moving_shapes") is tfds.MovingShapes
    world = shapes_world.World()
    directory = tfds.write(tmp_path, world, train=6, validation=3)
    spec = Spec(frames=world.frames, height=world.size, width=world.size)
    drawn = render.render(world, "train", np.arange(6))
    stored = {e["caption"]: e["video"] for e in take(directory, 6, spec=spec, shuffle=False)}
    for caption, video in zip(drawn["caption"], drawn["video"], strict=True):
        np.testing.assert_array_equal(stored[caption], video)
    assert take(directory, 1, spec=spec, kind="image")[0]["video"].shape[0] == 1
    assert clip_records.size(directory, "held_out", "video") == 3
