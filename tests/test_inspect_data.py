"""The page of a data set: its counts are right, and it needs no other file."""

import re

import layouts
import numpy as np
import pytest
from numbered_clips import numbered, regular, write_video
from test_text_vocabulary import trained

from phenaki.data.prepare import filters, inspect, inspect_page, run
from phenaki.text import vocabulary


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two sources of 2 clips and 1, a copy of one of them, two captions, one black clip."""
    root = tmp_path_factory.mktemp("media")
    layouts.video(root / "in" / "a.mp4", 22)
    layouts.video(root / "in" / "b.mp4", 11, first=40)
    (root / "in" / "copy.mp4").write_bytes((root / "in" / "b.mp4").read_bytes())
    write_video(root / "in" / "black.mp4", regular(11, 8), [np.zeros((48, 64, 3), np.uint8)] * 11)
    rows = [("a.mp4", "four"), ("b.mp4", "<b>seven")]
    layouts.table(root / "in" / "captions.csv", "file,caption", rows)
    size = dict(height=48, width=64, encoding="png", validation=0.0)
    run.prepare(run.PrepareOptions(root / "in", root / "set", filters=filters.Filters(), **size))
    return root / "set"


def test_it_counts_the_records(directory):
    split = inspect.measure(directory, 100)["video_train"]
    assert (split.stored, split.seen, split.uncaptioned) == (5, 5, 2)
    assert split.frames == [11] * 5 and split.fps == [8.0] * 5
    assert split.source_fps == pytest.approx([8.0] * 5, abs=0.01)
    assert sorted(split.tokens) == [5, 5, 9]  # bytes and an end token
    assert split.sources == {"a.mp4": 2, "b.mp4": 1, "copy.mp4": 1, "black.mp4": 1}
    assert split.equal == [("copy.mp4#00000", "b.mp4#00000")]
    shown = numbered(5)  # frame 5 is the middle of the first clip
    assert split.brightness[0] == pytest.approx(shown.mean(), abs=2)
    assert (min(split.lowest), max(split.highest)) == (0, 255)
    assert split.warnings() == ["1 clips are nearly black", "1 clips equal an earlier one"]


def test_sources_slower_than_the_clips_are_named():
    split = inspect.SplitStatistics(3, seen=3, fps=[8.0] * 3, source_fps=[1.0, 5.0, 25.0])
    split.lowest, split.highest, split.brightness = [0], [255], [99.0, 98.0, 97.0]
    found = "2 clips are of sources slower than 8 frames per second: their frames repeat"
    assert split.warnings() == [found]


def test_a_part_is_spread_evenly(directory):
    split = inspect.measure(directory, 2)["video_train"]
    assert (split.seen, split.stored) == (2, 5)
    assert set(split.sources) == {"a.mp4", "black.mp4"}  # the middles of both halves


def test_captions_are_counted_in_pieces_and_long_ones_named(directory, run_script, tmp_path):
    model = tmp_path / "tiny.model"
    model.write_bytes(trained())
    pieces = vocabulary.sentencepiece(model, 4)
    split = inspect.measure(directory, 100, pieces.count, length=4)["video_train"]
    wanted = [len(pieces.model.encode(text)) + 1 for text in ("four", "four", "<b>seven")]
    assert sorted(split.tokens) == sorted(wanted) and max(wanted) > 4
    cut = sum(count > 4 for count in wanted)
    assert f"{cut} captions have more than 4 tokens and are truncated" in split.warnings()
    given = [f"--data={directory}", f"--output={tmp_path / 'p'}", "--length=4"]
    done = run_script("scripts/inspect_data.py", *given, f"--vocabulary={model}")
    assert f"{cut} captions have more than 4 tokens" in done.stdout, done.stderr
    done = run_script("scripts/inspect_data.py", *given, f"--vocabulary={tmp_path / 'none.model'}")
    assert done.returncode == 2 and "none.model" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_limited_range_is_noticed():
    split = inspect.SplitStatistics(
        2, 2, lowest=[16, 20], highest=[235, 200], brightness=[90.0, 91.0]
    )
    assert any("16 to 235" in line for line in split.warnings())


def test_the_page_is_self_contained_and_replaces_an_earlier_one(directory, run_script, tmp_path):
    (tmp_path / "p").write_text('<!doctype html><meta charset="utf-8"><title>data</title><style>')
    for _ in range(2):  # the page of an earlier version, then that of this one
        done = run_script(
            "scripts/inspect_data.py", f"--data={directory}", f"--output={tmp_path / 'p'}"
        )
        assert done.returncode == 0, done.stderr
    assert "5 of 5 records, 3 with captions of 5 to 9, median 5 tokens" in done.stdout
    page = (tmp_path / "p").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "data:image/png;base64," in page and "<b>seven" not in page
    assert "40.0%" in page  # the clips of a.mp4
    found = inspect.measure(directory, 100)["video_train"]
    assert inspect_page.sentence(found) in done.stdout


def test_charts_name_their_axes_and_ends(directory):
    split = inspect.measure(directory, 100)["video_train"]
    charts = re.findall(r"<svg.*?</svg>", inspect_page.page(directory, {"video_train": split}))
    texts = [re.findall(r"<text[^>]*>([^<]*)</text>", chart) for chart in charts]
    assert len(charts) == 5 and all({"0", "clips"} <= set(of_one) for of_one in texts)
    units = ["frames of", "frames per second of a clip", "per second of a source", "tokens of"]
    for unit, of_one in zip([*units, "pixels, 0 to 255"], texts, strict=True):
        assert any(unit in text for text in of_one), (unit, of_one)
    assert {"5", "9", "2"} <= set(texts[3])  # tokens from 5 to 9; two clips have 5
    for chart in charts:
        width, height = map(int, re.match(r'<svg width="(\d+)" height="(\d+)"', chart).groups())
        places = re.findall(r'<(?:text|rect) x="(\d+)" y="(\d+)"', chart)
        assert all(int(x) <= width and int(y) < height for x, y in places)
