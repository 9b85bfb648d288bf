"""Folders of media and the sources of their captions; defects are counted and named."""

import json

import pytest

from phenaki.data.prepare import items
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A folder of empty media files; nothing here is decoded."""
    root = tmp_path / "media"
    for name in (
        "b.mp4",
        "a.PNG",
        "deep/er/c.webm",
        "deep/notes.md",
        ".hidden.mp4",
        ".cache/d.mp4",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def captions(found) -> dict[str, str | None]:
    return {item.key: item.caption for item in found}


def test_media_are_listed_in_order_with_their_kind(folder):
    found = find.find(folder)
    assert [(item.key, item.kind) for item in found] == [
        ("a.PNG", "image"),
        ("b.mp4", "video"),
        ("deep/er/c.webm", "video"),
    ]
    assert all(item.caption is None and item.media.is_file() for item in found)
    assert (found.layout, found.other) == ("no captions", 1)


def test_csv_with_mark_quotes_and_newlines(folder):
    content = '\ufefffile , extra,Caption\r\nb.mp4,x,"a ""red"", round\n ball"\r\n'
    content += "deep//er/c.webm,,été\r\n"
    (folder / "captions.csv").write_text(content, encoding="utf-8", newline="")
    found = find.find(folder)
    assert captions(found) == {
        "a.PNG": None,
        "b.mp4": 'a "red", round ball',
        "deep/er/c.webm": "été",
    }
    assert found.layout == "captions file captions.csv"
    assert found.problems == ()
    assert found.other == 1


def test_blank_captions_are_none(folder):
    (folder / "captions.csv").write_text('file,caption\nb.mp4,\na.PNG," \n "\ndeep/er/c.webm\n')
    assert set(captions(find.find(folder)).values()) == {None}


def test_rows_that_fit_no_file_are_named(folder, tmp_path):
    (tmp_path / "secret.mp4").touch()
    rows = ["b.mp4,one", "b.mp4,one", "gone.mp4,x", "../secret.mp4,x", "/etc/passwd,x"]
    rows += ["deep/notes.md,x", "a.PNG,x,y"]
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(rows))
    found = find.find(folder)
    assert captions(found)["b.mp4"] == "one"
    reasons = {skipped.name: skipped.reason for skipped in found.problems}
    assert reasons["b.mp4"].endswith("second row of this file, with no other caption")
    assert reasons["gone.mp4"] == "captions.csv:4: no such file"
    assert "escapes" in reasons["../secret.mp4"] and "escapes" in reasons["/etc/passwd"]
    assert "not a video or image" in reasons["deep/notes.md"]
    assert "quote the caption" in reasons["a.PNG"]
    assert len(found) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        ("file,caption\n", "no caption"),
        ("name,text\nb.mp4,x\n", "header is 'name,text'"),
        ("file,caption\nx.mp4,x\n", "none of its 1 rows names a video or image"),
        ('file,caption\nb.mp4,"x\n', "not readable as CSV"),
    ],
)
def test_useless_captions_files_are_refused(folder, content, reason):
    path = folder / "captions.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=reason) as caught:
        find.find(folder, "captions.csv")
    assert "captions.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_captions_file_is_refused(folder):
    for wanted in (dict(captions="other.csv"), dict(layout="csv")):
        with pytest.raises(UserError, match="no such captions file"):
            find.find(folder, **wanted)


def test_sidecars(folder):
    (folder / "b.txt").write_text("\ufeffa red\n ball \n")
    (folder / "a.json").write_text(json.dumps({"caption": " ", "text": ["", "a cat"]}))
    (folder / "deep/er/c.json").write_text("{broken")
    found = find.find(folder)
    assert captions(found) == {"a.PNG": "a cat", "b.mp4": "a red ball", "deep/er/c.webm": None}
    assert found.layout == "a .txt or .json next to each file"
    (skipped,) = found.problems
    assert skipped.name == "deep/er/c.json"
    assert skipped.reason.startswith("unreadable caption")
    assert found.other == 1


def test_names_of_sidecars_may_keep_the_suffix(folder):
    (folder / "b.mp4.txt").write_text("a ball")
    (folder / "a.PNG.json").write_text(json.dumps({"title": "no caption"}))
    found = find.find(folder)
    assert captions(found) == {"a.PNG": None, "b.mp4": "a ball", "deep/er/c.webm": None}
    assert [(p.name, p.reason) for p in found.problems] == [
        ("a.PNG", "the text next to it has no caption")
    ]


def test_class_folders(tmp_path):
    for name in ("train/brushing_teeth/a.mp4", "train/adult+female+singing/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = find.find(tmp_path)
    assert list(captions(found).values()) == ["adult female singing", "brushing teeth"]
    assert found.layout == "folder names as captions"
    assert set(captions(find.find(tmp_path, layout="none")).values()) == {None}


def test_links_to_outside_are_skipped(folder, tmp_path):
    (tmp_path / "outside.mp4").touch()
    (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (folder / "inside.mp4").symlink_to(folder / "b.mp4")
    found = find.find(folder)
    assert found.problems == (items.Skipped("link.mp4", "a link to outside the folder"),)
    assert "inside.mp4" in captions(found) and "link.mp4" not in captions(found)


def test_folders_without_media_are_refused(tmp_path):
    (tmp_path / "a.txt").touch()
    for path, reason in {tmp_path: "no video or image", tmp_path / "x": "not a folder"}.items():
        with pytest.raises(UserError, match=reason):
            find.find(path)
