"""Hostile inputs: skipped with a reason; nothing outside the input and output is touched."""

import io
import tarfile

import fuzz_media
import hostile_media
import layouts
import pytest
from numbered_clips import regular, write_video

from phenaki.data.prepare import caption_tables, items, video
from phenaki.data.prepare.layouts import find, tars
from phenaki.errors import UserError
from phenaki.io import images


@pytest.fixture(scope="module")
def hostile():
    return dict(hostile_media.tars())


def listed(path, content) -> tuple[list[str], list[str]]:
    """(keys of items, reasons of what is skipped) of a tar."""
    path.write_bytes(content)
    found = list(tars.members(path, path.name))
    keys = [entry.key for entry in found if isinstance(entry, items.RawItem)]
    return keys, [entry.reason for entry in found if isinstance(entry, items.Skipped)]


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "parent": "its path escapes the tar",
        "absolute": "its path escapes the tar",
        "deep": "its path escapes the tar",
        "link": "a link or device, not a file",
        "hard": "a link or device, not a file",
        "device": "a link or device, not a file",
        "pipe": "a link or device, not a file",
        "lonely_text": "only .txt: no image or video",
        "lonely_image": "no .txt or .json: no caption",
        "bad_json": "unreadable caption",
        "not_utf8": "a name that is not UTF-8",
    }.items(),
)
def test_a_tar_gives_its_readable_members_and_counts_the_rest(name, reason, hostile, tmp_path):
    keys, reasons = listed(tmp_path / "a.tar", hostile[f"{name}.tar"])
    assert keys[0] == "a.tar/0.jpg"
    assert reasons and all(reason in found for found in reasons)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_member_is_read_as_it_was_packed(hostile, tmp_path):
    (tmp_path / "a.tar").write_bytes(hostile["lonely_text.tar"])
    item = next(tars.members(tmp_path / "a.tar", "a.tar"))
    assert (item.caption, item.kind) == ("good", "image")
    with items.open_media(item.media) as file:
        assert file.read() == layouts.image(7, "JPEG")
        assert (file.seek(-2, 2), file.read(), file.read()) != (0, b"", b"")
        assert file.tell() == item.media.size
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getmember("0.jpg").offset_data == item.media.offset


def test_corrupt_tars_report_the_number_of_files_before(hostile, tmp_path):
    keys, reasons = listed(tmp_path / "a.tar", hostile["device.tar"][:1500])
    assert keys == [] and "truncated" in " ".join(reasons) or "not readable" in " ".join(reasons)
    for name in ("text.tar", "gzip.tar"):
        keys, reasons = listed(tmp_path / "a.tar", hostile[name])
        assert keys == [] and "not readable after 0 files" in reasons[0]


def test_a_list_of_files_under_a_videos_name_opens_none_of_them(tmp_path):
    layouts.video(tmp_path / "outside.mkv", 30)
    named = dict(hostile_media._wrong({"png": b"", "mp4": b"", "mkv": b""}))
    (tmp_path / "in").mkdir()
    for name in ("concat.mp4", "list.mp4", "dash.mp4"):
        path = tmp_path / "in" / name
        path.write_bytes(named[name])
        for source in (path, io.BytesIO(named[name])):
            with pytest.raises(images.UnreadableMedia):
                list(video.clips(source, frames=3, fps=8, height=48, width=64))


def test_a_frame_with_a_duration_of_hours_ends(tmp_path):
    path = write_video(tmp_path / "a.mkv", [*regular(3, 8), *(3500 * k for k in range(1, 9))])
    with pytest.raises(images.UnreadableMedia, match="would be shown"):
        for _ in video.clips(path, frames=3, fps=8, height=8, width=8):
            pass


@pytest.mark.parametrize(
    ("name", "caption"),
    {
        "quotes": 'a "red" ball, round',
        "newlines": "a red ball",
        "mark": "x",
        "latin": "été",
        "wide": "été",
        "megabyte": " ".join(["word"] * 200_000),
        "few_cells": None,
        "many_cells": None,
        "parent": "x",
        "absolute": "x",
    }.items(),
)
def test_captions_survive_what_spreadsheets_do(name, caption, tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "captions.csv").write_bytes(dict(hostile_media.tables())[name])
    (item,) = find.find(tmp_path)
    assert item.caption == caption


def test_what_cannot_be_written_as_utf8_is_replaced_or_named(hostile, tmp_path):
    (tmp_path / "a.tar").write_bytes(hostile["half_a_pair.tar"])
    captions = [item.caption for item in find.find(tmp_path)]
    assert captions == ["good", "a ? b"]
    (tmp_path / "\udcff.png").write_bytes(layouts.image(3))
    assert [skipped.reason for skipped in find.find(tmp_path).problems] == [
        "a name that is not UTF-8"
    ]


def test_a_container_has_the_same_name_in_every_process(hostile, tmp_path):
    (tmp_path / "a.tar").write_bytes(hostile["half_a_pair.tar"])
    (unit,) = find.find(tmp_path).units
    identity = items._identity(unit.reader)
    assert identity[:2] == ("phenaki.data.prepare.layouts.tars", "members")
    assert " at 0x" not in repr(identity)


def test_numbers_in_tables_stay_text(tmp_path):
    layouts.table(tmp_path / "t.csv", "videoid,page", [("00066", "1e5")])
    assert [row for _, row in caption_tables.rows(tmp_path / "t.csv")] == [
        {"videoid": "00066", "page": "1e5"}
    ]
    for name in ("empty", "open_quote"):
        (tmp_path / "t.csv").write_bytes(dict(hostile_media.tables())[name])
        with pytest.raises(UserError, match="t.csv"):
            list(caption_tables.rows(tmp_path / "t.csv"))


def test_layouts_are_forced_and_refused(tmp_path):
    layouts.make("DAVIS", tmp_path / "davis")
    forced = find.find(tmp_path / "davis", layout="none")
    assert {item.kind for item in forced} == {"image"}
    with pytest.raises(UserError, match="does not have this layout"):
        find.find(tmp_path / "davis", layout="kinetics")
    with pytest.raises(UserError, match="no such data set"):
        find.find("tfds:no_such_set")


def test_an_unknown_tfds_set_asks_for_its_fields_and_a_camera_can_be_chosen(tmp_path):
    source = layouts.make("tfds bair_robot_pushing_small", tmp_path)
    other = next(iter(find.find(source, fields={"media": "image_main"})))
    assert layouts.numbered(0)[0, 0, 0] == other.media.images[0][0, 0, 0]
    with pytest.raises(UserError, match="has only action, image_aux1, image_main there"):
        find.find(source, fields={"media": "image_aux2"})


def test_a_dozen_of_the_fuzzers_inputs(tmp_path):
    count, wrong = fuzz_media.fuzz(tmp_path, seed=0, fraction=1 / 17)
    assert count >= 10 and wrong == []
