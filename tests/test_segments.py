"""Segments of videos: columns of times, one pass over a file, keys, splits, native frame rates."""

import json
import os
import subprocess
import sys
import weakref
from fractions import Fraction
from pathlib import Path

import decoded
import layouts
import numpy as np
import pyarrow
import pytest
from decoded import FRAMES, decode, numbers
from numbered_clips import numbered, read_number, regular, write_video
from pyarrow import parquet

from phenaki.data import stored_clips
from phenaki.data.clip_records import ClipSize
from phenaki.data.prepare import frames, ingest, playback, segments, shards
from phenaki.data.prepare.items import FrameSequence, Segment
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """long.mp4: 40 frames at 8 a second, 5 s."""
    root = tmp_path_factory.mktemp("in")
    layouts.video(root / "long.mp4", frames=40)
    return root


def write_table(root: Path, name: str, columns: str, rows: list[tuple]) -> Path:
    layouts.table(root / name, columns, rows)
    return root / name


def read(folder, tmp_path, columns, rows, fields=None, name="t.csv", **changes):
    table = write_table(tmp_path, name, columns, rows)
    found = find.find(folder, table, fields=fields)
    return found, *decode(found, tmp_path / "spool", **changes)


@pytest.mark.parametrize(
    "columns, start, end",
    [
        ("start,end", "1", "2.5"),
        ("start_time,end_time", "0:00:01.000", "0:00:02.500"),
        ("Start Time,End Time", "00:00:01,000", "00:00:02,500"),
        ("time_start,time_end", "1.0s", "2.5s"),
        ("begin,stop", "0:01", "0:02.5"),
        ("startMs,endMs", "1000", "2500"),
        ("start_frame,end_frame", "8", "20"),
        ("startTime,endTime", "1", "2.5"),
        ("start,duration", "1", "1.5"),
    ],
)
def test_columns_of_times_cut_a_file(folder, tmp_path, columns, start, end):
    found, clips, reasons = read(
        folder, tmp_path, f"file,{columns},caption", [("long.mp4", start, end, "a part")]
    )
    shown = [numbers(record) for record in clips.values()]
    assert shown == [[8, 9, 10], [11, 12, 13], [14, 15, 16], [17, 18, 19]]
    assert not reasons and "--fields=start=none" in found.notes[0]
    starts = [record.start for record in clips.values()]
    assert starts == [1.0, 1.375, 1.75, 2.125]


def test_a_column_of_pairs_and_a_row_of_lists(folder, tmp_path):
    rows = [
        {
            "file": "long.mp4",
            "timestamps": [[0, 0.5], ["0:00:01", "0:00:01.5"]],
            "captions": ["a", "b"],
        },
        {"file": "long.mp4", "timestamps": [2, 2.5], "captions": ["c", "d"]},
        {"file": "long.mp4", "timestamps": [[3, 3.5], [4, 4.5]], "captions": "e"},
    ]
    table = tmp_path / "t.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    clips, reasons = decode(find.find(folder, table), tmp_path / "spool")
    seen = [(numbers(c)[0], (c.caption, *c.more_captions)) for c in clips.values()]
    assert seen == [(0, ("a",)), (8, ("b",)), (16, ("c", "d")), (24, ("e",)), (32, ("e",))]
    assert not reasons


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_segments_as_objects_with_their_captions(folder, tmp_path, name):
    parts = [
        {"start": 0.0, "end": 0.5, "caption": "a"},
        {"start_time": "0:01", "end_time": "0:01.5", "text": "b"},
        {"segment": [2, 2.5], "sentence": "c"},
    ]
    row = {"video": "long", "segments": parts}
    (tmp_path / name).write_text(json.dumps(row if name == "t.jsonl" else {"long.mp4": parts}))
    clips, reasons = decode(find.find(folder, tmp_path / name), tmp_path / "spool")
    assert [(numbers(c)[0], c.caption) for c in clips.values()] == [(0, "a"), (8, "b"), (16, "c")]
    assert not reasons


def test_parquet_with_missing_times(folder, tmp_path):
    columns = {"video_id": ["long"] * 3, "start": [1.0, None, 2.0], "end": [1.5, None, None]}
    table = pyarrow.table(columns | {"narration": ["a", "all", "rest"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    clips, _ = decode(find.find(folder, tmp_path / "t.parquet"), tmp_path / "spool", limit=1)
    assert [(numbers(c)[0], c.caption) for c in clips.values()] == [
        (0, "all"),
        (8, "a"),
        (16, "rest"),
    ]


def test_columns_and_units_named_by_fields(folder, tmp_path):
    row = [("long.mp4", "16", "24", "a part")]
    fields = {"start": "first", "end": "last", "unit": "frames"}
    _, clips, _ = read(folder, tmp_path, "file,first,last,caption", row, fields)
    assert [numbers(c) for c in clips.values()] == [[16, 17, 18], [19, 20, 21]]
    assert list(clips) == ["long.mp4#f16-f24#00000", "long.mp4#f16-f24#00001"]
    _, clips, _ = read(folder, tmp_path, "file,start,end,caption", row, {"start": "none"})
    assert len(clips) == 13 and list(clips)[0] == "long.mp4#00000"
    for bad, message in (
        ({"unit": "minutes"}, "must be seconds, ms or frames"),
        ({"start": "frist", "end": "last"}, "did you mean first"),
        ({"start": "first"}, "needs start and end"),
    ):
        with pytest.raises(UserError, match=message):
            read(folder, tmp_path, "file,first,last,caption", row, bad)


def test_columns_that_are_no_segments_are_left_alone(folder, tmp_path):
    header = "video,caption,frame,fps,seconds,duration,timestamp,from"
    row = ("long.mp4", "a video", "40", "8", "5", "5.0", "2020-01-01 10:00:00", "youtube")
    _, clips, _ = read(folder, tmp_path, header, [row])
    assert len(clips) == 13
    with pytest.raises(UserError, match="start: '2020-01-01' is not a time.*fields=start=none"):
        read(folder, tmp_path, "file,start,end,caption", [("long.mp4", "2020-01-01", "2021", "x")])


def test_a_file_named_after_the_times_is_cut_already(tmp_path):
    layouts.video(tmp_path / "in/abc_000012_000014.mp4", frames=16)
    layouts.video(tmp_path / "in/video7.mp4", frames=6)
    rows = [("abc_000012_000014.mp4", "12", "14", "cut")]
    _, clips, reasons = read(tmp_path / "in", tmp_path, "file,start,end,caption", rows)
    assert sum(key.startswith("abc") for key in clips) == 5 and not reasons
    # MSR-VTT as a table: its times are in the video at the url.
    rows = [("video7.mp4", "12.5", "22.5", "u", "cut")]
    _, clips, reasons = read(
        tmp_path / "in", tmp_path, "video,start time,end time,url,caption", rows
    )
    assert "video7.mp4#00000" in clips and not reasons


def test_rows_of_ids_and_times_name_files_that_are_cut_already(tmp_path):
    layouts.video(tmp_path / "in/cut/abc_000012_000014.mp4")
    layouts.video(tmp_path / "in/cut/abc_14.0_16.5.mp4", first=20)
    rows = [("abc", "12", "14", "a"), ("abc", "0:14", "16.5", "b"), ("abc", "3", "4", "c")]
    (tmp_path / "in/list.csv").write_text(
        "\n".join(["video_id,start,end,caption", *map(",".join, rows)])
    )
    found = find.find(tmp_path / "in")
    assert {item.key: (item.captions, item.segment) for item in found} == {
        "cut/abc_000012_000014.mp4": (("a",), None),
        "cut/abc_14.0_16.5.mp4": (("b",), None),
    }
    assert [problem.name for problem in found.problems] == ["abc"]


def test_a_bad_segment_costs_itself_only(folder, tmp_path):
    rows = [
        ("long.mp4", "1", "2", "good"),
        ("long.mp4", "2", "1", "reversed"),
        ("long.mp4", "2", "2", "empty"),
        ("long.mp4", "3", "3.2", "short"),
        ("long.mp4", "60", "70", "past"),
        ("long.mp4", "4", "9", "half past"),
        ("long.mp4", "4", "5.5", "rounded"),
        ("long.mp4", "one", "2", "no time"),
        ("long.mp4", "-1", "2", "negative"),
        ("gone.mp4", "1", "2", "gone"),
    ]
    found, clips, reasons = read(folder, tmp_path, "file,start,end,caption", rows)
    assert sorted({c.caption for c in clips.values()}) == ["good", "rounded"]
    assert reasons == {
        "long.mp4#2-1": "reversed segment: 2-1",
        "long.mp4#2-2": "empty segment: 2-2",
        "long.mp4#3-3.2": "too short: 2 frames at 8 fps, 3 needed",
        "long.mp4#60-70": "past the end: 60-70, the file has 4.9 s",
        "long.mp4#4-9": "past the end: 4-9, the file has 4.9 s",
    }
    assert [(p.name, p.reason.partition(": ")[2]) for p in found.problems] == [
        ("long.mp4#one-2", "'one' is not a time: seconds, H:M:S.ms or frames"),
        ("long.mp4#-1-2", "-1 is below 0"),
        ("gone.mp4", "no such file"),
    ]


def test_blank_times_mean_the_complete_file_or_its_end(folder, tmp_path):
    rows = [
        ("long.mp4", "", "", "all"),
        ("long.mp4", "4.5", "", "end"),
        ("long.mp4", "nan", ".5", "begin"),
    ]
    _, clips, _ = read(folder, tmp_path, "file,start,end,caption", rows)
    by_caption = {c.caption: [] for c in clips.values()}
    for c in clips.values():
        by_caption[c.caption].append(numbers(c)[0])
    assert by_caption["end"] == [36] and by_caption["begin"] == [0] and len(by_caption["all"]) == 13


def test_captions_of_equal_segments_are_joined(folder, tmp_path):
    rows = [
        ("long.mp4", "1", "1.5", "a"),
        ("long.mp4", "1.0", "0:01.5", "b"),
        ("long.mp4", "1", "1.5", "a"),
    ]
    _, clips, _ = read(folder, tmp_path, "file,start,end,caption", rows)
    (clip,) = clips.values()
    assert (clip.caption, clip.more_captions) == ("a", ("b",))
    assert (clip.key, clip.source, clip.start) == ("long.mp4#1-1.5#00000", "long.mp4", 1.0)


def test_overlapping_segments_are_those_of_files_of_their_own(folder, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    rows = []
    for number in range(10):
        start, length = random.uniform(0, 4.5), random.uniform(0.4, 2)
        rows.append(("long.mp4", f"{start:.3f}", f"{min(5, start + length):.3f}", f"part {number}"))
    opened, show = [], playback.shown
    monkeypatch.setattr(playback, "shown", lambda *a: opened.append(a) or show(*a))
    _, together, reasons = read(folder, tmp_path, "file,start,end,caption", rows)
    assert len(opened) == 1 and not reasons  # decoded once
    for row in rows:
        _, alone, _ = read(folder, tmp_path, "file,start,end,caption", [row])
        for key, clip in alone.items():
            assert together[key].frames == clip.frames
            # Frame k is the last that is shown at start + k / 8.
            first = Fraction(row[1]) + Fraction(int(key[-5:]) * FRAMES, 8)
            times = [first + Fraction(k, 8) for k in range(FRAMES)]
            assert numbers(clip) == [int(time * 8 + Fraction(8, 1000)) for time in times]
            assert times[-1] < Fraction(row[2])


def test_many_segments_at_once_share_their_frames(folder, monkeypatch):
    shown, resized, show, fit = [], [], playback.shown, segments.fit
    monkeypatch.setattr(playback, "shown", lambda *a: (count(shown)(f) for f in show(*a)))
    monkeypatch.setattr(segments, "fit", lambda *a, **k: count(resized)(fit(*a, **k)))
    parts = [Segment(Fraction(n, 100), Fraction(2)) for n in range(100)]
    size = dict(frames=3, fps=8, height=48, width=64)
    found = list(segments.clips(folder / "long.mp4", parts, **size))
    assert {f.number for f in found if f.clip} == set(range(100))
    assert len(shown) == len(resized) == 16  # the rest of the file is not decoded


def count(into: list):
    def counted(value):
        into.append(value)
        return value

    return counted


def test_memory_does_not_grow_with_the_number_of_segments(folder, monkeypatch):
    made, fit, most = [], segments.fit, 0

    def counted(*arguments, **options):
        image = fit(*arguments, **options)
        made.append(weakref.ref(image))
        return image

    monkeypatch.setattr(segments, "fit", counted)
    # Each is one clip of three frames, and two frames more.
    parts = [Segment(Fraction(n, 2), Fraction(n, 2) + Fraction(5, 8)) for n in range(9)]
    for _ in segments.clips(folder / "long.mp4", parts, frames=3, fps=8, height=48, width=64):
        most = max(most, sum(image() is not None for image in made))
    assert len(made) > 30 and most <= 8


def test_a_broken_file_keeps_the_segments_before(folder, tmp_path):
    (tmp_path / "in").mkdir()
    content = bytearray((folder / "long.mp4").read_bytes())
    start, end = (int(len(content) * part) for part in (0.6, 0.7))
    content[start:end] = bytes(end - start)
    (tmp_path / "in/long.mp4").write_bytes(content)
    rows = [("long.mp4", "0.5", "1", "before"), ("long.mp4", "4", "4.9", "after")]
    _, clips, reasons = read(tmp_path / "in", tmp_path, "file,start,end,caption", rows)
    assert [c.caption for c in clips.values()] == ["before"]
    assert list(reasons) == ["long.mp4#4-4.9"] and "corrupt" in reasons["long.mp4#4-4.9"]


def test_a_crash_costs_one_decoding_of_the_file(folder, tmp_path):
    rows = [("long.mp4", str(n), str(n + 1), "part") for n in range(4)]
    table = write_table(tmp_path, "t.csv", "file,start,end,caption", rows)
    (unit,) = find.find(folder, table).units
    done = ingest.retry_items(unit, decoded.job(tmp_path))
    assert [item.reason for item in done.items] == ["the decoder crashed or hung"] * 4


def test_segments_of_a_file_are_in_one_split_and_no_duplicates(folder, tmp_path):
    rows = [("long.mp4", str(n / 10), str(n / 10 + 1), "part") for n in range(20)]
    table = write_table(tmp_path, "t.csv", "file,start,end,caption", rows)
    (unit,) = find.find(folder, table).units
    done = ingest.decode_unit(unit, decoded.job(tmp_path, limit=1))
    plan = shards.ShardPlan(0.5, drop_duplicates=True)
    assert not any(plan.add(done.clips, item) for item in done.items)
    assert [len(split) for split in plan.splits.values()] == [20]


def test_splits_of_rows_are_kept(folder, tmp_path):
    rows = [("long.mp4", "0", "1", "a", "train"), ("long.mp4", "1", "2", "b", "testing")]
    found, *_ = read(folder, tmp_path, "file,start,end,caption,subset", rows)
    assert [item.split for item in found] == ["train", "validation"]
    found, *_ = read(folder, tmp_path, "file,start,end,caption", [rows[0][:4]], name="val_1.csv")
    assert [item.split for item in found] == ["validation"]


@pytest.mark.parametrize(
    "name, rate, codec",
    [("a.mp4", 25, "libx264"), ("b.mkv", Fraction(30000, 1001), "libx264"), ("c.avi", 15, "mjpeg")],
)
def test_native_clips_have_every_frame_and_the_rate_of_their_file(tmp_path, name, rate, codec):
    (tmp_path / "in").mkdir()
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    times = regular(8, rate)
    write_video(tmp_path / "in" / name, times, [numbered(k) for k in range(8)], codec, pix_fmt)
    clips, _ = decode(find.find(tmp_path / "in"), tmp_path / "spool", fps=0.0)
    assert [numbers(c) for c in clips.values()] == [[0, 1, 2], [3, 4, 5]]
    for clip in clips.values():
        assert clip.fps == pytest.approx(float(rate), rel=0.01)


def test_native_segments_and_image_sequences(folder, tmp_path):
    _, clips, _ = read(
        folder, tmp_path, "file,start,end,caption", [("long.mp4", "1", "2", "a")], fps=0.0
    )
    assert [numbers(c) for c in clips.values()] == [[8, 9, 10], [11, 12, 13]]
    assert {c.fps for c in clips.values()} == {8.0}
    layouts.davis(tmp_path / "davis")
    found = find.find(tmp_path / "davis", source_fps=24.0)
    clips, _ = decode(found, tmp_path / "spool", fps=0.0)
    assert [numbers(c) for c in clips.values()][:2] == [[0, 1, 2], [3, 4, 5]]
    assert {c.fps for c in clips.values()} == {24.0}
    images = FrameSequence([numbered(k) for k in range(7)])  # of unknown rate, as BAIR's
    found = list(frames.clips(images, frames=3, fps=None, height=48, width=64))
    assert [[read_number(image) for image in clip.video] for clip in found] == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    assert [(clip.start, clip.fps) for clip in found] == [(0.0, 0.0), (0.0, 0.0)]


def test_the_script_writes_native_segments_that_training_reads(folder, tmp_path):
    table = write_table(
        tmp_path,
        "t.csv",
        "file,start,end,caption",
        [("long.mp4", "1", "2", "a part"), ("long.mp4", "9", "10", "gone")],
    )
    command = [sys.executable, ROOT / "scripts/prepare_data.py", f"--input={folder}"]
    flags = [f"--captions={table}", f"--output={tmp_path / 'set'}", "--fps=native", "--size=48x64"]
    done = subprocess.run(
        [*command, *flags, "--frames=3", "--encoding=png", "--validation=0", "--workers=1"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "note: t.csv: segments from start, end in seconds" in done.stdout
    assert "long.mp4#9-10: past the end: 9-10, the file has 4.9 s" in done.stdout
    # At any config.video.fps: the rate is the clip's own.
    stored = stored_clips.StoredClips(tmp_path / "set", "train", "video", ClipSize(3, 48, 64, 25.0))
    assert [[read_number(image) for image in one["video"]] for one in stored.take(range(2))] == [
        [8, 9, 10],
        [11, 12, 13],
    ]
