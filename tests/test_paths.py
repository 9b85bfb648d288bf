"""Paths of users: addresses of buckets are told from names of files; others are refused by name."""

import os
from pathlib import Path

import pytest
import toy
from etils import epath

from phenaki.errors import UserError
from phenaki.io import checkpoint_steps, paths


def test_a_local_path_stays_what_it_was(tmp_path):
    for name in ("runs/a", "a:b.mp4", "10:30 take", "./gs:/bucket/a", str(tmp_path)):
        assert paths.path(name) == Path(name) and isinstance(paths.path(name), Path)
        assert not paths.is_remote(paths.path(name))
    assert paths.path(Path("a")) == Path("a")
    with paths.local(tmp_path) as here, paths.written(tmp_path / "new") as there:
        assert (here, there) == (tmp_path, tmp_path / "new")


def test_an_address_keeps_both_slashes():
    found = paths.path("gs://bucket/runs") / "a.txt"
    assert isinstance(found, epath.Path) and str(found) == "gs://bucket/runs/a.txt"
    assert paths.is_remote(found) and paths.is_remote(os.fspath(found))
    assert paths.absolute("gs://bucket/runs") == paths.path("gs://bucket/runs/")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("gs:/bucket/out", "nearest is gs://bucket/out"),
        (Path("gs://bucket/out"), "nearest is gs://bucket/out"),  # which drops a slash
        ("gs:///out", "nearest is gs://out"),
        ("gs://", "nearest is gs://BUCKET/NAME"),
        ("GS://bucket/out", "nearest is gs://bucket/out"),
        ("gcs://bucket/out", "nearest is gs://bucket/out"),
        ("https://storage.googleapis.com/bucket/a/b", "nearest is gs://bucket/a/b"),
        ("https://console.cloud.google.com/storage/browser/bucket/a", "nearest is gs://bucket/a"),
        ("file:///data/out", "nearest is /data/out"),
        ("s3://bucket/out", "copy it to gs:// or mount it"),
        ("az://bucket/out", "copy it to gs:// or mount it"),
        ("hdfs://host/out", "copy it to gs:// or mount it"),
        ("http://host/a.mp4", "copy it to gs:// or mount it"),
    ],
)
def test_other_addresses_are_refused_with_the_nearest_good_one(given, nearest):
    with pytest.raises(UserError, match="must be a path of this machine or gs://BUCKET/NAME") as no:
        paths.path(given)
    assert str(no.value).startswith(f"{given}: ") and nearest in str(no.value)


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("prepare_data.py", ["--input=media", "--output=gs:/bucket/out"]),
        ("prepare_data.py", ["--input=s3://bucket/media", "--output=out"]),
        ("demo.py", ["--workdir=gs://bucket/demo"]),
    ],
)
def test_a_script_refuses_them_before_it_works(script, flags, run_script, tmp_path):
    run = run_script(f"scripts/{script}", *flags)
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
    assert "must be a path of this machine" in run.stderr
    assert not Path("gs:").exists() and not Path("s3:").exists()


def test_a_mounted_bucket_has_checkpoints_without_renames(tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(
        f"disk / ext4 rw 0 0\nbucket {tmp_path}/my\\040bucket fuse.gcsfuse rw 0 0\n"
        f"disk {tmp_path}/my\\040bucket/disk ext4 rw 0 0\n"
    )
    monkeypatch.setattr(checkpoint_steps, "MOUNTS", str(tmp_path / "mounts"))
    mounted = tmp_path / "my bucket"
    assert checkpoint_steps.mounts_bucket(mounted / "run")
    assert not checkpoint_steps.mounts_bucket(tmp_path / "my bucket too")
    assert not checkpoint_steps.mounts_bucket(mounted / "disk")

    def renamed(source, target, **_):
        raise OSError(f"{source} is renamed to {target}")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", renamed)
        toy.run(mounted / "run", steps=2, save_every=1)
    steps = mounted / "run" / "checkpoints"
    assert checkpoint_steps.complete_steps(steps) == [1, 2]
    (steps / "2" / checkpoint_steps.COMMITTED).unlink()  # as a kill before it leaves it
    assert checkpoint_steps.complete_steps(steps) == [1]
    assert int(toy.run(mounted / "run", steps=3, save_every=1).params["kernel"][0, 0]) == 7
