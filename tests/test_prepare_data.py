"""From a folder to a data set that TFDS opens: what is written, skipped, reported and refused."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import decode_or_crash, numbered, read_number, regular, write_video
from PIL import Image

from phenaki.data import format, tensorflow
from phenaki.data.prepare import ingest, run
from phenaki.errors import UserError
from phenaki.io.quiet import no_logs

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three good videos, an image, and files that are corrupt, truncated, short or not media."""
    root = tmp_path_factory.mktemp("media")
    for name, frames in {"a.mp4": 30, "b.mkv": 11, "c.mp4": 12, "short.mp4": 10}.items():
        write_video(root / name, regular(frames, 8))
    Image.fromarray(numbered(77)).save(root / "image.png")
    (root / "broken.mp4").write_bytes(b"not a video")
    (root / "empty.webm").touch()
    good = write_video(root / "cut.mkv", regular(60, 8)).read_bytes()
    (root / "cut.mkv").write_bytes(good[: len(good) // 2])
    (root / "notes.md").write_text("hello")
    rows = ["a.mp4,first", "b.mkv,", "image.png,an image", "gone.mp4,nothing"]
    (root / "captions.csv").write_text("file,caption\n" + "\n".join(rows))
    return root


def options(folder, output, **changes) -> run.PrepareOptions:
    size = dict(height=48, width=64, encoding="png", validation=0.0)
    return run.PrepareOptions(input=folder, output=output, **(size | changes))


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "set"
    return output, run.prepare(options(folder, output))


def read(directory, split) -> list[dict]:
    with no_logs():
        data = tensorflow.datasets().builder_from_directory(str(directory))
        return list(
            tensorflow.datasets().as_numpy(data.as_dataset(split=split, shuffle_files=False))
        )


def test_tfds_reads_what_was_written(prepared):
    output, report = prepared
    clips = {example["key"].decode(): example for example in read(output, "video_train")}
    assert sorted(clips) == ["a.mp4#00000", "a.mp4#00001", "b.mkv#00000", "c.mp4#00000"]
    second = clips["a.mp4#00001"]
    assert [read_number(image) for image in second["video"]] == list(range(11, 22))
    assert (second["caption"].decode(), second["captioned"]) == ("first", True)
    assert not clips["b.mkv#00000"]["captioned"] and not clips["c.mp4#00000"]["captioned"]
    (image,) = read(output, "image_train")
    assert image["video"].shape == (1, 48, 64, 3)
    assert read_number(image["video"][0]) == 77
    assert report["clips"] == {"image_train": 1, "video_train": 4}


def test_clips_of_sources_slower_than_the_set_are_counted(tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "slow.mp4", regular(8, 2))  # 3.5 s: two clips of 11 frames at 8
    write_video(tmp_path / "in" / "fast.mp4", regular(11, 8))
    content = run.prepare(options(tmp_path / "in", tmp_path / "set"))
    assert content["clips"] == {"video_train": 3} and content["slow_clips"] == 2
    line = "clips whose frames repeat: 2, of sources with fewer than 8 frames a second"
    assert line in (tmp_path / "set" / "report.txt").read_text().splitlines()
    # One rate below the set's own says nothing wrong of either.
    content = run.prepare(options(tmp_path / "in", tmp_path / "native", fps="native"))
    assert content["slow_clips"] == 0
    assert "repeat" not in (tmp_path / "native" / "report.txt").read_text()


def test_every_clip_says_where_it_comes_from(prepared, folder):
    output, _ = prepared
    for example in read(output, "video_train"):
        source = folder / example["source"].decode()
        assert example["source_sha256"].decode() == hashlib.sha256(source.read_bytes()).hexdigest()
        assert example["source_size"].tolist() == [48, 64]
        assert example["fps"] == 8
        assert example["start"] == pytest.approx(read_number(example["video"][0]) / 8)


def test_the_report_counts_and_names(prepared):
    output, report = prepared
    assert json.loads((output / "report.json").read_text()) == json.loads(json.dumps(report))
    assert report["files"] == {
        "found": 8,
        "read": 4,
        "videos": 3,
        "images": 1,
        "captioned": 2,
        "skipped": 4,
        "problems": 1,
        "other": 1,
    }
    reasons = {entry["file"]: entry["reason"] for entry in report["skipped"]}
    assert sorted(reasons) == ["broken.mp4", "cut.mkv", "empty.webm", "short.mp4"]
    assert reasons["short.mp4"] == "too short: 10 frames at 8 fps, 11 needed"
    assert report["problems"] == [{"name": "gone.mp4", "reason": "captions.csv:5: no such file"}]
    words = (output / "report.txt").read_text()
    assert all(name in words for name in [*reasons, "gone.mp4", "captions file captions.csv"])


def test_the_contact_sheet_shows_the_clips(prepared):
    output, _ = prepared
    with Image.open(output / "contact_sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("L"))
    assert min(pixels.shape) > 200
    assert (pixels < 50).mean() > 0.05


def files(directory) -> dict[str, bytes]:
    names = sorted(p for p in directory.iterdir() if not p.name.startswith("report"))
    return {path.name: path.read_bytes() for path in names}


def test_same_bytes_again_and_with_several_processes(prepared, folder, tmp_path):
    output, _ = prepared
    run.prepare(options(folder, tmp_path / "again", workers=2))
    assert files(tmp_path / "again") == files(output)


def test_a_crash_of_the_decoder_skips_one_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "decode_unit", decode_or_crash)
    for name in ("crash.mp4", "fine.mp4", "last.mp4"):
        (tmp_path / "media").mkdir(exist_ok=True)
        (tmp_path / "media" / name).write_bytes((folder / "b.mkv").read_bytes())
    report = run.prepare(options(tmp_path / "media", tmp_path / "set", workers=2))
    assert report["skipped"] == [{"file": "crash.mp4", "reason": "the decoder crashed or hung"}]
    assert report["clips"] == {"video_train": 2}


def test_validation_is_a_stable_fraction_of_the_files():
    keys = [f"{k}.mp4" for k in range(4000)]
    small, large = ({k for k in keys if format.split_of(k, s) != "train"} for s in (0.1, 0.3))
    assert abs(len(small) / 4000 - 0.1) < 0.02
    assert small < large
    assert format.split_of("x", 0.0) == "train"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (dict(frames=10), "--frames=10: must be 1 \\+ 2n.* nearest is 11"),
        (dict(fps=0.0), "--fps=0"),
        (dict(fps=float("nan")), "--fps=nan"),
        (dict(height=4), "--size=4"),
        (dict(validation=1.0), "--validation=1"),
        (dict(quality=0), "--quality=0"),
        (dict(workers=0), "--workers"),
        (dict(layout="magic"), "--layout='magic' must be one of auto"),
        (dict(caption_template="a cat"), "--caption_template=a cat: must have {} once"),
        (dict(caption_template="a {}"), "needs names of classes, but the layout is: captions file"),
        (dict(captions="none.csv"), "none.csv: no such captions file"),
        (dict(input=Path("/nowhere")), "/nowhere: not a folder"),
    ],
)
def test_bad_options_are_refused_before_work(folder, tmp_path, change, reason):
    with pytest.raises(UserError, match=reason):
        run.prepare(dataclasses.replace(options(folder, tmp_path / "set"), **change))
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written_are_refused(folder, tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    cases = {
        tmp_path / "file": "a file",
        tmp_path / "file" / "below": "cannot be written",
        tmp_path / "full": "not empty",
        folder / "inside": "must not lie inside --input=",
    }
    for output, reason in cases.items():
        with pytest.raises(UserError, match=reason):
            run.prepare(options(folder, output))
    with pytest.raises(UserError, match="is not empty .it has kept., and nothing of scripts/pre"):
        run.prepare(options(folder, tmp_path / "full", overwrite=True))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "kept"]


def test_overwrite_replaces_a_data_set(folder, prepared, tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "b.mkv").write_bytes((folder / "b.mkv").read_bytes())
    chosen = options(tmp_path / "media", tmp_path / "set", encoding="jpeg")
    run.prepare(chosen)
    run.prepare(dataclasses.replace(chosen, overwrite=True, frames=5))
    (_, second) = read(tmp_path / "set", "video_train")
    assert [read_number(image) for image in second["video"]] == [5, 6, 7, 8, 9]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["media", "set"]


def test_a_template_is_around_class_names_and_stored_for_evaluation(tmp_path):
    for name in ("train/TallCat/a.png", "test/dog/b.png", "test/.c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbered(3)).save(tmp_path / "in" / name)
    chosen = options(tmp_path / "in", tmp_path / "set", caption_template="a photo of a {}")
    report = run.prepare(chosen)
    assert report["clips"] == {"image_train": 1, "image_validation": 1}
    assert [entry.partition(";")[0] for entry in report["notes"]][0] == (
        "splits from the folders test, train"
    )
    (cat,) = read(tmp_path / "set", "image_train")
    assert cat["caption"].decode() == "a photo of a tall cat"
    _, form = format.open_set(tmp_path / "set")
    assert form.caption_template == "a photo of a {}"
    log = (tmp_path / "set" / "dead_letters.jsonl").read_text()
    assert json.loads(log) == {"name": "test/.c.png", "reason": "a hidden file"}
    run.prepare(dataclasses.replace(chosen, source_splits=False, overwrite=True))
    assert len(read(tmp_path / "set", "image_train")) == 2


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").touch()
    with pytest.raises(UserError, match="none of its 1 files could be used; the first, a.mp4: not"):
        run.prepare(options(tmp_path / "media", tmp_path / "set"))
    assert [p.name for p in tmp_path.iterdir()] == ["media"]


def script(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / "prepare_data.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_script_writes_and_reports(folder, tmp_path):
    result = script(f"--input={folder}", f"--output={tmp_path / 'set'}", "--size=32")
    assert result.returncode == 0, result.stderr
    assert "files: 4 read (3 videos, 1 images), 4 skipped, 1 neither" in result.stdout
    assert "short.mp4: too short" in result.stdout
    assert "8/8 (100%)" in result.stderr
    assert (tmp_path / "set" / "contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size=wide"], "--size=wide"),
        (["--frames=10"], "nearest is 11"),
        (["--layout=magic"], "--layout=magic"),
        (["--outptu=x"], "did you mean --output"),
    ],
)
def test_the_script_reports_a_mistake_in_one_line(folder, tmp_path, arguments, message):
    result = script(f"--input={folder}", f"--output={tmp_path / 'set'}", *arguments)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "set").exists()


def test_the_script_explains_itself():
    result = script("--help")
    assert result.returncode == 0
    assert all(flag in result.stdout for flag in ("--input", "--captions", "--frames", "--fps"))
