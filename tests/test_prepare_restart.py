"""A stopped run resumes: nothing is decoded twice, the bytes are those of an undisturbed run."""

import dataclasses
import json
import shutil

import kill_prepare
import layouts
import pytest

from phenaki.data import format
from phenaki.data.prepare import filters, ingest, run, video, workdir
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError
from phenaki.io import artifacts, verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("media") / "in"
    for index in range(4):
        layouts.video(root / f"{index}.mp4", 22, first=30 * index)
    (root / "4.mp4").write_bytes((root / "0.mp4").read_bytes())
    (root / "5.mp4").write_bytes(b"no video")
    rows = [("0.mp4", "one"), ("1.mp4", "one two three"), ("2.mp4", "one two")]
    layouts.table(root / "captions.csv", "file,caption", rows)
    return root


def options(folder, output, **changes) -> run.PrepareOptions:
    size = dict(height=48, width=64, encoding="png", validation=0.0)
    return run.PrepareOptions(input=folder, output=output, **(size | changes))


def test_complete_units_are_not_decoded_again(folder, tmp_path, monkeypatch):
    chosen = options(folder, tmp_path / "set")
    undisturbed = run.prepare(dataclasses.replace(chosen, output=tmp_path / "undisturbed"))
    decoded, real = [], video.clips

    def clips(file, **how):
        decoded.append(file)
        if len(decoded) == 3:
            raise KeyboardInterrupt
        return real(file, **how)

    monkeypatch.setattr(video, "clips", clips)
    with pytest.raises(KeyboardInterrupt):
        run.prepare(chosen)
    assert not (tmp_path / "set").exists()
    again = run.prepare(chosen)
    assert len(decoded) == 3 + 4  # two are complete, the third is interrupted
    assert (again["clips"], again["skipped"]) == (undisturbed["clips"], undisturbed["skipped"])
    assert kill_prepare.contents(tmp_path / "set") == kill_prepare.contents(
        tmp_path / "undisturbed"
    )
    assert not (tmp_path / ".set.partial").exists()


def test_other_options_or_a_changed_file_are_decoded_again(folder, tmp_path):
    layouts.video(tmp_path / "in" / "a.mp4", 22)
    (unit,) = find.find(tmp_path / "in").units
    form = format.ClipFormat(11, 8.0, 48, 64, "png")
    job = ingest.Job(form, 95, None, filters.Filters(), tmp_path)
    names = {job.name(unit), dataclasses.replace(job, limit=1).name(unit)}
    names.add(dataclasses.replace(job, filters=filters.Filters(min_words=1)).name(unit))
    layouts.video(tmp_path / "in" / "a.mp4", 33)
    names.add(job.name(unit))
    assert len(names) == 4
    assert job.name(unit) == dataclasses.replace(job, spool=tmp_path / "x").name(unit)


def test_two_runs_of_one_output_are_refused(folder, tmp_path):
    chosen = options(folder, tmp_path / "set")
    with (
        workdir.claim(chosen.output),
        pytest.raises(UserError, match="another run is writing it"),
    ):
        run.prepare(chosen)


def test_filters_count_what_they_skip(folder, tmp_path):
    words = filters.Filters(min_words=1, max_words=2)
    report = run.prepare(options(folder, tmp_path / "a", filters=words))
    assert report["reasons"] == {"caption too long": 1, "caption too short": 3}
    assert report["clips"] == {"video_train": 4}
    report = run.prepare(options(folder, tmp_path / "b", drop_duplicates=True, limit=1))
    reasons = {entry["file"]: entry["reason"] for entry in report["skipped"]}
    assert reasons["4.mp4"] == "duplicate: same bytes as 0.mp4"
    assert report["clips"] == {"video_train": 4}


def test_clips_without_motion_are_skipped(tmp_path):
    static, moving = tmp_path / "in" / "static.mp4", tmp_path / "in" / "moving.mp4"
    layouts.video(moving, 22)
    layouts.write_video(static, layouts.regular(22, 8), [layouts.numbered(9)] * 22)
    chosen = options(tmp_path / "in", tmp_path / "set", filters=filters.Filters(min_motion=1.0))
    report = run.prepare(chosen)
    assert report["skipped"] == [
        {"file": "static.mp4", "reason": "near-static: each of its 2 clips"}
    ]
    assert report["clips"] == {"video_train": 2}


def test_every_host_gets_eight_shards_and_the_manifest_has_them(tmp_path):
    layouts.video(tmp_path / "in" / "a.mp4", 40)
    chosen = options(tmp_path / "in", tmp_path / "set", frames=3, hosts=1)
    run.prepare(chosen)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["records"] == {"video_train": 13} and manifest["shards"] == {"video_train": 8}
    for name, noted in manifest["files"].items():
        assert artifacts.checksum(tmp_path / "set" / name) == noted
    shards = [
        name for name in manifest["files"] if ".tfrecord" in name and not name.endswith(".npy")
    ]
    assert len(shards) == 8
    run.prepare(dataclasses.replace(chosen, hosts=4, output=tmp_path / "more"))
    more = json.loads((tmp_path / "more" / "manifest.json").read_text())
    assert more["shards"] == {"video_train": 13}  # never an empty one
    assert more["config_sha256"] != manifest["config_sha256"]


def test_an_edited_description_of_a_data_set_is_refused(tmp_path):
    layouts.video(tmp_path / "in" / "a.mp4", 40)
    run.prepare(options(tmp_path / "in", tmp_path / "set", frames=3))
    for name, old, new in (
        ("metadata.json", '"fps": 8.0', '"fps": 9.0'),
        ("dataset_info.json", '"version": "1.0.0"', '"version": "1.0.1"'),
        ("features.json", "source_fps", "source_fpt"),
        ("manifest.json", '"video_train": 13', '"video_train": 12'),
    ):
        copy = shutil.copytree(tmp_path / "set", tmp_path / name)
        content = (copy / name).read_text()
        assert old in content
        (copy / name).write_text(content.replace(old, new))
        with pytest.raises(UserError) as caught:
            format.open_set(copy)
        assert str(caught.value) == (
            f"{copy / name}: is damaged, or was edited: its checksum is another one; copy it "
            "again, or give --no_verify."
        )
    with verify.unverified():
        assert format.open_set(tmp_path / "metadata.json")[1].fps == 9


@pytest.mark.slow
def test_killed_twice_it_writes_the_same_bytes(tmp_path):
    assert kill_prepare.kill_rounds(tmp_path, rounds=2) == []
