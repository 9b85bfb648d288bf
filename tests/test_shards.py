"""Shards: bytes of memory per clip, order, resumption; and the log of what is skipped."""

import dataclasses
import json
import tracemalloc
from pathlib import Path

import kill_prepare
import layouts
import pytest

from phenaki.data import clip_records, format
from phenaki.data.prepare import filters, ingest, items, report, run, shards, spool
from phenaki.data.prepare.layouts import find


def result(key, clips, split="train", **fields):
    return spool.ItemResult(key, "video", split=split, clips=tuple(clips), **fields)


def test_a_clip_takes_some_twenty_bytes():
    plan, count = shards.ShardPlan(0.1, drop_duplicates=False), 30_000
    tracemalloc.start()
    try:
        for number in range(count):
            unit = Path(f"/spool/{number // 1000}.clips")
            plan.add(unit, result(f"{number}.mp4", [(number * 30_000, 30_000)], split=None))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / count < 25
    assert sum(split.records for split in plan.splits.values()) == count


def test_shards_keep_the_order_over_units_and_items():
    plan = shards.ShardPlan(0.0, drop_duplicates=False)
    places = {}
    for unit in range(4):
        for item in range(3):
            clips = [(100 * item + clip, 7) for clip in range(item + unit % 2)]
            plan.add(Path(f"{unit}"), result(f"{unit}/{item}", clips))
            places[unit, item] = clips
    wanted = [(str(u), *clip) for (u, _), clips in places.items() for clip in clips]
    split = plan.splits["video_train"]
    assert (split.records, split.bytes, len(split)) == (len(wanted), 7 * len(wanted), 12)
    assert [count for _, count in split] == [len(clips) for clips in places.values()]
    cut = shards.shards(plan.splits, Path("/set"), hosts=1)["video_train"]
    assert len(cut) == 8 and {len(shard) for shard in cut} == {2, 3}
    parts = [part for shard in cut for part in shard.parts]
    assert [
        (str(part.path), int(offset), int(size))
        for part in parts
        for offset, size in zip(part.offsets, part.sizes, strict=True)
    ] == wanted


@pytest.mark.parametrize(("hosts", "most", "count"), [(1, 10**9, 8), (2, 10**9, 16), (1, 640, 10)])
def test_shards_are_as_many_as_hosts_and_bytes_ask_for(hosts, most, count):
    plan = shards.ShardPlan(0.0, drop_duplicates=False)
    plan.add(Path("unit"), result("a", [(64 * n, 64) for n in range(100)]))
    (cut,) = shards.shards(plan.splits, Path("/set"), hosts, most).values()
    assert len(cut) == count and sum(map(len, cut)) == 100


def test_of_items_of_one_name_the_first_readable_one_is_kept(tmp_path):
    media = [b"broken", layouts.image(1), layouts.image(2)]
    unit = items.WorkUnit("unit", tuple(items.RawItem("a.png", "image", one) for one in media))
    form = format.ClipFormat(11, 8.0, 48, 64, "png")
    for name, decode in (("decode", ingest.decode_unit), ("retry", ingest.retry_items)):
        (tmp_path / name).mkdir()
        job = ingest.Job(form, 95, None, filters.Filters(), tmp_path / name)
        done = decode(unit, job)
        first, second, third = [one.reason for one in done.items]
        assert first and (second, third) == (None, "second of this name")
        assert [len(one.clips) for one in done.items] == [0, 1, 0]


def test_the_log_names_every_skipped_item_and_the_report_a_few(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_NAMED", 2)
    layouts.video(tmp_path / "in" / "good.mp4", 11)
    for number in range(5):
        (tmp_path / "in" / f"{number}.mp4").write_bytes(b"no video")
    rows = [(f"gone{number}.mp4", "x") for number in range(4)] + [("good.mp4", "x")]
    layouts.table(tmp_path / "in" / "captions.csv", "file,caption", rows)
    options = run.PrepareOptions(tmp_path / "in", tmp_path / "set", height=48, width=64)
    counts = run.prepare(options)
    assert (counts["files"]["skipped"], counts["files"]["problems"]) == (5, 4)
    assert (len(counts["skipped"]), len(counts["problems"])) == (2, 2)
    assert "... and 3 more in dead_letters.jsonl" in (tmp_path / "set" / "report.txt").read_text()
    lines = (tmp_path / "set" / report.SKIPPED_LOG).read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert {entry["file"] for entry in entries if "file" in entry} == {
        f"{number}.mp4" for number in range(5)
    }
    assert {entry["name"] for entry in entries if "name" in entry} == {
        f"gone{number}.mp4" for number in range(4)
    }
    assert all(entry["reason"] for entry in entries)


def test_a_name_that_is_not_unicode_is_logged_too(tmp_path):
    layouts.video(tmp_path / "in" / "good.mp4", 11)
    rows = ['{"file": "good.mp4", "caption": "x"}', r'{"file": "\ud800.mp4", "caption": "y"}']
    (tmp_path / "in" / "captions.jsonl").write_text("\n".join(rows))
    run.prepare(run.PrepareOptions(tmp_path / "in", tmp_path / "set", height=48, width=64))
    (line,) = (tmp_path / "set" / report.SKIPPED_LOG).read_text().splitlines()
    assert json.loads(line)["name"] == "\ud800.mp4"


def test_complete_shards_are_not_written_again(tmp_path, monkeypatch):
    for number in range(3):
        layouts.video(tmp_path / "in" / f"{number}.mp4", 22, first=30 * number)
    options = run.PrepareOptions(
        tmp_path / "in", tmp_path / "set", height=48, width=64, encoding="png", validation=0.0
    )
    undisturbed = dataclasses.replace(options, output=tmp_path / "undisturbed")
    run.prepare(undisturbed)
    written, read = [], spool.read

    def stops(part):
        if stops.after == 0:
            raise KeyboardInterrupt
        stops.after -= 1
        written.append(part)
        return read(part)

    monkeypatch.setattr(spool, "read", stops)
    stops.after = 4
    with pytest.raises(KeyboardInterrupt):
        run.prepare(options)
    half = tmp_path / ".set.partial" / "set"
    cut_short = sorted(half.glob("*-00001-of-00006"))[0]
    cut_short.write_bytes(cut_short.read_bytes()[:-1])
    (half / "leftover").write_text("of another run")
    stops.after = -1
    run.prepare(options)
    assert len(written) == 4 + 3  # the two missing ones, and the truncated one
    assert kill_prepare.contents(options.output) == kill_prepare.contents(undisturbed.output)


def test_shards_whose_clips_changed_are_written_again(tmp_path):
    for number in range(2):
        layouts.video(tmp_path / "in" / f"{number}.mp4", 22, first=30 * number)
    size = dict(height=48, width=64, encoding="png", validation=0.0)
    options = run.PrepareOptions(tmp_path / "in", tmp_path / "set", **size)
    run.prepare(options)
    # What a run that is killed at its very end leaves, with clips of the same size.
    left = tmp_path / ".set.partial"
    for name in ("set", "spool", "written"):
        (left / name).mkdir(parents=True)
    form = format.ClipFormat(11, 8.0, 48, 64, "png")
    (tmp_path / "spool").mkdir()
    job = ingest.Job(form, 95, None, filters.Filters(), tmp_path / "spool")
    plan = shards.ShardPlan(0.0, drop_duplicates=False)
    for unit in find.find(tmp_path / "in").units:
        done = ingest.decode_unit(unit, job)
        for result in done.items:
            places = result.clips[::-1]  # the same bytes in all, in another order
            plan.add(done.clips, dataclasses.replace(result, clips=places))
    (stale,) = shards.shards(plan.splits, left / "set", 1).values()
    for shard in stale:
        shards.write(shard, form, left / "written")
    again = dataclasses.replace(options, output=tmp_path / "again")
    left.rename(tmp_path / ".again.partial")
    run.prepare(again)
    assert kill_prepare.contents(again.output) == kill_prepare.contents(options.output)


def test_shards_written_by_several_processes_are_the_same(tmp_path, monkeypatch):
    for number in range(3):
        layouts.video(tmp_path / "in" / f"{number}.mp4", 22, first=30 * number)
    made = {}
    for name, many in (("alone", 64), ("together", 1)):
        monkeypatch.setattr(run, "PARALLEL_SHARDS", many)
        output = tmp_path / name
        options = run.PrepareOptions(
            tmp_path / "in", output, height=48, width=64, workers=2, validation=0.0
        )
        run.prepare(options)
        files = (path for path in output.iterdir() if not path.name.startswith("report"))
        made[name] = {path.name: path.read_bytes() for path in files}
    assert made["alone"] == made["together"]
    assert clip_records.size(tmp_path / "alone", "train", "video") == 6
