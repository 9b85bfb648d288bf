"""Tables, texts and folders of frames as people have them: no caption is cut, lost or misplaced."""

import io
import json

import layouts
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from phenaki.data.mixture_state import rates_of
from phenaki.data.prepare import segment_columns
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError

PAIR = "file,caption\na.png,café\nb.png,a dog\n"
OF_PAIR = {"a.png": ("café",), "b.png": ("a dog",)}


def folder(root, *names: str):
    """Makes empty media of these names."""
    for name in names:
        write(root / name, b"")


def write(path, text: str | bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def read(root, **options):
    """(captions by key, the reasons of problems, notes)"""
    found = find.find(root, **options)
    items = {item.key: item.captions for item in found}
    return items, [f"{one.name}: {one.reason}" for one in found.problems], list(found.notes)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_any_encoding_and_line_ends(tmp_path, end, encoding, delimiter):
    folder(tmp_path, "a.png", "b.png")
    text = PAIR.replace(",", delimiter).replace("\n", end)
    suffix = "tsv" if delimiter == "\t" else "csv"
    write(tmp_path / f"captions.{suffix}", text.encode(encoding))
    items, _, _ = read(tmp_path)
    assert items == OF_PAIR


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("container", ["sidecar", "tar", "json", "frames"])
def test_texts_next_to_media_of_any_encoding(tmp_path, encoding, container):
    text = "café au lait".encode(encoding)
    if container == "sidecar":
        folder(tmp_path, "a.png", "b.png")
        write(tmp_path / "a.txt", text)
        key, options = "a.png", {}
    elif container == "json":
        folder(tmp_path, "a.png", "b.png")
        write(
            tmp_path / "a.json",
            json.dumps({"caption": "café au lait"}, ensure_ascii=False).encode(encoding),
        )
        key, options = "a.png", {}
    elif container == "frames":
        folder(tmp_path, "v1/0.png", "v1/1.png")
        write(tmp_path / "v1.txt", text)
        key, options = "v1", {"layout": "frames"}
    else:
        layouts.write_tar(tmp_path / "0.tar", {"a.jpg": layouts.image(1, "JPEG"), "a.txt": text})
        key, options = "0.tar/a.jpg", {}
    items, problems, _ = read(tmp_path, **options)
    assert items[key] == ("café au lait",)
    assert not problems or container in ("sidecar", "json")  # b.png has none


def test_suffixes_of_cameras_are_in_capitals(tmp_path):
    folder(tmp_path, "A.JPG", "B.JPG")
    write(tmp_path / "A.TXT", "of a")
    write(tmp_path / "B.TXT", "not this")
    write(tmp_path / "B.txt", "of b")
    items, _, _ = read(tmp_path)
    assert items == {"A.JPG": ("of a",), "B.JPG": ("of b",)}


@pytest.mark.parametrize(
    "text",
    [
        f"\n\n{PAIR}",
        f"sep=;\n{PAIR.replace(',', ';')}",
        f'"sep=|"\r\n{PAIR.replace(",", "|")}',
        '"file";"caption";"more, in English"\na.png;café;x\nb.png;a dog;y\n',
    ],
    ids=["blank lines", "sep", "sep in quotes", "a comma in quotes"],
)
def test_what_comes_before_the_header_is_passed_over(tmp_path, text):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "captions.csv", text)
    assert read(tmp_path)[0] == OF_PAIR


def test_lines_are_counted_with_those_before_the_header(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "captions.csv", "\n\nfile,caption\na.png,x\nnone.png,y\n")
    assert read(tmp_path)[1] == ["none.png: captions.csv:5: no such file"]


def test_columns_of_one_name_all_count(tmp_path):
    folder(tmp_path, "a.png")
    write(tmp_path / "captions.csv", "file,caption,caption,caption\na.png,one,two,three\n")
    assert read(tmp_path)[0] == {"a.png": ("one", "two", "three")}


WIDE = "too many cells; quote the caption"
TABLES_WITH_A_COMMA = {
    "frames": ("file,caption\nv1,a dog, sitting\nv2,fine\n", {"layout": "frames"}),
    "webvid": ("videoid,page_dir,name\na,x,a dog, sitting\nb,x,fine\n", {}),
    "openvid": (
        "video,aesthetic score,motion score,caption\na.mp4,1,2,a dog, sitting\nb.mp4,1,2,fine\n",
        {},
    ),
    "charades": ("id,script,descriptions\na,x,a dog, sitting\nb,x,fine\n", {}),
    "table": ("file,caption\na.mp4,a dog, sitting\nb.mp4,fine\n", {}),
    "segments": ("file,start,end,caption\na.mp4,0,1,a dog, sitting\nb.mp4,0,1,fine\n", {}),
}


@pytest.mark.parametrize("name", TABLES_WITH_A_COMMA)
def test_a_comma_without_quotes_costs_the_caption_and_is_named(tmp_path, name):
    text, options = TABLES_WITH_A_COMMA[name]
    folder(tmp_path, *(["v1/0.png", "v2/0.png"] if name == "frames" else ["a.mp4", "b.mp4"]))
    write(tmp_path / "captions.csv", text)
    items, problems, _ = read(tmp_path, **options)
    assert ("fine",) in items.values() and ("a dog",) not in items.values()
    assert [one for one in problems if WIDE in one]


def test_labels_of_kinetics_with_a_comma_are_named(tmp_path):
    folder(tmp_path, "abc_000012_000022.mp4", "xyz_000001_000002.mp4")
    header = "label,youtube_id,time_start,time_end,split\n"
    rows = "abseiling,abc,12,22,train\nair, drumming,xyz,1,2,train\n"
    write(tmp_path / "train.csv", header + rows)
    items, problems, _ = read(tmp_path)
    assert items["abc_000012_000022.mp4"] == ("abseiling",)
    assert [one for one in problems if WIDE in one]


# Folders of frames.


@pytest.mark.parametrize(
    "name", ["v1", "a/v1", "./a/v1", "a\\v1", "v1.mp4", "A/V1", "v1/", "{root}/a/v1"]
)
def test_a_row_names_a_folder_of_frames(tmp_path, name):
    folder(tmp_path, "a/v1/0.png", "a/v1/1.png", "a/v2/0.png")
    write(tmp_path / "captions.csv", f"file,caption\n{name.format(root=tmp_path)},of 1\n")
    items, problems, _ = read(tmp_path, layout="frames")
    assert items == {"a/v1": ("of 1",), "a/v2": ()} and not problems


def test_folders_of_one_name_are_not_guessed(tmp_path):
    folder(tmp_path, "a/v1/0.png", "b/v1/0.png", "b/v2/0.png")
    write(tmp_path / "captions.csv", "file,caption\nv1,which\nb/v1,of b\nv2,of 2\n")
    items, problems, _ = read(tmp_path, layout="frames")
    assert items == {"a/v1": (), "b/v1": ("of b",), "b/v2": ("of 2",)}
    assert problems == ["v1: captions.csv:2: several folders of this name"]


def test_resolutions_of_davis_are_one_video(tmp_path):
    sizes = [f"JPEGImages/{size}/bear" for size in ("480p", "1080p")]
    folder(tmp_path, *(f"{place}/0.jpg" for place in sizes))
    write(tmp_path / "captions.csv", "file,caption\nbear,a bear walks\n")
    assert read(tmp_path)[0] == dict.fromkeys(sizes, ("a bear walks",))


def test_flags_and_splits_of_folders_of_frames_are_read(tmp_path):
    folder(tmp_path, "v1/0.png", "v2/0.png", "v3/0.png")
    rows = "v1,of 1,train,\nv2,of 2,val,NSFW\nv3,of 3,,0.2\n"
    write(tmp_path / "captions.csv", f"file,caption,split,nsfw\n{rows}")
    found = {item.key: (item.split, item.nsfw) for item in find.find(tmp_path, layout="frames")}
    assert found == {"v1": ("train", None), "v2": ("validation", "NSFW"), "v3": (None, "0.2")}


def test_texts_next_to_folders_of_frames_have_all_of_their_names(tmp_path):
    folder(tmp_path, "0.png", "v.1/0.png", "v.2/0.png")
    write(tmp_path / "v.txt", "of neither")
    write(tmp_path / "v.2.txt", "of 2")
    items, _, _ = read(tmp_path, layout="frames")
    assert items == {".": (), "v.1": (), "v.2": ("of 2",)}


def test_times_of_folders_of_frames_are_told_to_be_unread(tmp_path):
    folder(tmp_path, "v1/0.png")
    write(tmp_path / "captions.csv", "file,start,end,caption\nv1,1,2,of 1\n")
    items, _, notes = read(tmp_path, layout="frames")
    assert items == {"v1": ("of 1",)}
    assert any("start not read as times" in note and "read whole" in note for note in notes)


# Names that several files have.


@pytest.mark.parametrize(
    ("column", "rows", "name"),
    [
        ("file,caption", "a.png,which\nb.png,of b\n", "a.png"),
        ("id,caption", "a,which\nb,of b\n", "a"),
        ("id,start,end,caption", "a,0,1,which\nb,0,1,of b\n", "a"),
        (
            "video,caption,aesthetic score,motion score",
            "a.png,which,1,1\nb.png,of b,1,1\n",
            "a.png",
        ),
    ],
)
def test_files_of_one_name_in_several_folders_are_not_guessed(tmp_path, column, rows, name):
    folder(tmp_path, "x/a.png", "y/a.png", "b.png")
    write(tmp_path / "list.csv", f"{column}\n{rows}")
    items, problems, _ = read(tmp_path, captions="list.csv")
    assert ("of b",) in items.values() and ("which",) not in items.values()
    assert any(one.startswith(name) and "in several folders" in one for one in problems)


def test_the_folder_of_a_table_says_which_file_is_meant(tmp_path):
    folder(tmp_path, "x/a.mp4", "y/a.mp4")
    header = "video,caption,aesthetic score,motion score\n"
    for place in "xy":
        write(tmp_path / place / "list.csv", f"{header}a.mp4,of {place},1,1\n")
    assert read(tmp_path)[0] == {"x/a.mp4": ("of x",), "y/a.mp4": ("of y",)}


def test_the_split_of_a_row_says_which_file_is_meant(tmp_path):
    folder(tmp_path, "train/a.png", "val/a.png")
    write(tmp_path / "captions.csv", "file,split,caption\na.png,train,one\na.png,val,two\n")
    assert read(tmp_path)[0] == {"train/a.png": ("one",), "val/a.png": ("two",)}


def test_videos_come_before_their_thumbnails(tmp_path):
    folder(tmp_path, "videos/a.mp4", "thumbs/a.jpg")
    write(tmp_path / "list.csv", "id,caption\na,a dog\n")
    assert read(tmp_path, captions="list.csv")[0]["videos/a.mp4"] == ("a dog",)


def test_names_in_another_case_are_found(tmp_path):
    folder(tmp_path, "a.png", "Sub/B.PNG", "c.png", "C.png")
    text = "file,caption\nA.PNG,of a\nsub\\b.png,of b\nc.png,small\nC.png,large\n"
    write(tmp_path / "captions.csv", text)
    items, problems, _ = read(tmp_path)
    expected = {
        "a.png": ("of a",),
        "Sub/B.PNG": ("of b",),
        "c.png": ("small",),
        "C.png": ("large",),
    }
    assert items == expected and not problems


# Times.


@pytest.mark.parametrize(
    "cell",
    [
        "00:00:01,000 --> 00:00:02,500", "00:00:01.000-->00:00:02.500", "1s ~ 2.5s", "1 - 2.5",
        "1-2.5", "0:01,0:02.5", "1, 2.5", "1 2.5", "1,0 2,5", "1,0 to 2,5", "1..2.5", "1 → 2.5",
        "1;2.5", "[1, 2.5]", "(1.0, 2.5)", "0:01 – 0:02.5",
    ],
)  # fmt: skip
def test_both_times_in_one_cell(cell):
    columns = segment_columns.SegmentColumns(pairs="segment")
    (found,) = columns.of({"segment": cell})
    assert (float(found.start), float(found.end)) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("columns", "cells"),
    [
        ("start_ms,duration_ms", "1000,1500"),
        ("start_time,clip_length", "1,1.5"),
        ("start,len_sec", "1,1.5"),
        ("begin,dur", "1,1.5"),
        ("start,video_duration,duration", "1,99,1.5"),
    ],
)
def test_a_start_and_a_length(tmp_path, columns, cells):
    folder(tmp_path, "a.mp4")
    write(tmp_path / "captions.csv", f"file,{columns},caption\na.mp4,{cells},x\n")
    assert [*read(tmp_path)[0]] == ["a.mp4#1-2.5"]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("start", "1.0"),
        ("timestamp", "1.5"),
        ("segment", "the first"),
        ("start,duration_ms", "1,500"),
    ],
)
def test_times_that_are_not_read_are_told(tmp_path, column, cell):
    folder(tmp_path, "a.mp4")
    write(tmp_path / "captions.csv", f"file,{column},caption\na.mp4,{cell},x\n")
    items, _, notes = read(tmp_path)
    assert items == {"a.mp4": ("x",)}
    assert any(f"{column.split(',')[0]} not read as times of segments" in note for note in notes)


# JSON by names, and of images.


@pytest.mark.parametrize(
    "content",
    [
        {"a": "café", "b": "a dog"},
        {"a.png": ["café"], "b": ["a dog"]},
        {"a": {"caption": "café"}, "b": {"caption": "a dog"}},
        {
            "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
            "annotations": [
                {"image_id": 2, "id": 1, "caption": "a dog"},
                {"image_id": 1, "id": 2, "caption": "café"},
            ],
        },
        {
            "images": [
                {"filename": "a.png", "split": "restval", "sentences": [{"raw": "café"}]},
                {"filename": "b.png", "split": "test", "sentences": [{"raw": "a dog"}]},
            ],
            "dataset": "own",
        },
    ],
    ids=["texts", "lists", "objects", "coco", "karpathy"],
)
def test_json_by_names_and_of_images(tmp_path, content):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "captions.json", json.dumps(content))
    assert read(tmp_path)[0] == OF_PAIR


def test_coco_in_its_folders(tmp_path):
    folder(tmp_path, "train2017/01.jpg", "val2017/02.jpg")
    for year, name in (("train2017", "01.jpg"), ("val2017", "02.jpg")):
        images = [{"id": 7, "file_name": name}]
        texts = [{"image_id": 7, "caption": "one"}, {"image_id": 7, "caption": "two"}]
        about = {"images": images, "annotations": texts}
        write(tmp_path / f"annotations/captions_{year}.json", json.dumps(about))
        boxes = {"images": images, "annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1]}]}
        write(tmp_path / f"annotations/instances_{year}.json", json.dumps(boxes))
    found = {item.key: (item.captions, item.split) for item in find.find(tmp_path)}
    assert found == {
        "train2017/01.jpg": (("one", "two"), "train"),
        "val2017/02.jpg": (("one", "two"), "validation"),
    }


def test_why_no_row_fits_is_told(tmp_path):
    folder(tmp_path, "x/a.png", "y/a.png")
    write(tmp_path / "captions.csv", "file,caption\na.png,which\n")
    with pytest.raises(UserError, match=r"first: 'a.png', .*in several folders"):
        read(tmp_path)


# Addresses.


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("{root}/day=3", {"{root}/day=3": 1.0}),
        ("{root}/day=3=0.5,other", {"{root}/day=3": 0.5, "other": 1.0}),
        ("{root}/day=3/set", {"{root}/day=3/set": 1.0}),
        ("{root}/day=3/set=0.25", {"{root}/day=3/set": 0.25}),
        ("a=0.8, b=0.2", {"a": 0.8, "b": 0.2}),
    ],
)
def test_folders_of_a_mixture_may_have_an_equals_sign(tmp_path, sources, expected):
    (tmp_path / "day=3").mkdir()
    given = sources.format(root=tmp_path)
    rates = rates_of(dict(sources=given, image_sources=""))["video"]
    assert rates == {key.format(root=tmp_path): rate for key, rate in expected.items()}


def test_a_rate_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="'half' must be a number"):
        rates_of(dict(sources="a=half", image_sources=""))


BY_COLUMN = {
    "lists": {"file": ["a.png", "b.png"], "caption": ["café", "a dog"]},
    "as pandas writes": {
        "file": {"0": "a.png", "1": "b.png"}, "caption": {"0": "café", "1": "a dog"},
    },
    "rows in another order": {
        "Caption": {"7": "a dog", "2": "café"}, "FileName": {"2": "a.png", "7": "b.png"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BY_COLUMN)
def test_json_by_columns_is_a_table(tmp_path, name):
    folder(tmp_path, "a.png", "b.png")
    write(tmp_path / "captions.json", json.dumps(BY_COLUMN[name]))
    assert read(tmp_path)[0] == OF_PAIR
    # Not guessed where the columns differ in length.
    broken = {"file": ["a.png", "b.png"], "caption": ["café"]}
    write(tmp_path / "captions.json", json.dumps(broken))
    with pytest.raises(UserError, match=r"captions\.json: its column 'caption' has other rows"):
        read(tmp_path)


def test_texts_of_parquet_may_be_bytes(tmp_path):
    folder(tmp_path, "a.png", "b.png")
    table = pyarrow.table(
        {"file": [b"a.png", b"b.png"], "caption": ["café".encode(), b"a dog"], "x": [b"\xff", b""]}
    )
    parquet.write_table(table, tmp_path / "captions.parquet")
    assert read(tmp_path)[0] == OF_PAIR


def test_media_in_parquet_with_captions_of_bytes(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    table = pyarrow.table({"image": [buffer.getvalue()], "caption": ["café".encode()]})
    parquet.write_table(table, tmp_path / "data.parquet")
    assert list(read(tmp_path)[0].values()) == [("café",)]


@pytest.mark.parametrize("name", ["a.tar.gz", "clips/b.TGZ", "c.zip", "d.tar.zst"])
def test_packed_clips_are_to_be_unpacked(tmp_path, name):
    write(tmp_path / name, b"\x1f\x8b")
    for layout in ("auto", "csv"):
        with pytest.raises(UserError, match=rf"no video or image .* Unpack {name} first"):
            find.find(tmp_path, layout)
    write(tmp_path / "e.png", b"")
    assert set(read(tmp_path)[0]) == {"e.png"}
