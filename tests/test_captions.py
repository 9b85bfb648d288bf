"""Captions as people write them: lists, quotes, indices, flags, classes; nothing is decoded."""

import csv
import json

import pytest

from phenaki.data.prepare import caption_tables, captions, filters, items
from phenaki.data.prepare.layouts import find
from phenaki.errors import UserError

NAMES = ("a.mp4", "b.mp4", "c.png")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


def read(folder, **changes) -> dict[str, tuple[str, ...]]:
    return {item.key: item.captions for item in find.find(folder, **changes)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a cat", ("a cat",)),
        (["a cat", " a  cat ", None, "", "two cats"], ("a cat", "two cats")),
        ('["a cat", "it\\u2019s \\"big\\""]', ("a cat", 'it’s "big"')),
        ("['a cat', \"the cat's tail\"]", ("a cat", "the cat's tail")),
        ("['a cat'\n 'two cats']", ("a cat", "two cats")),  # as pandas writes NumPy's arrays
        ('[{"caption": "a cat"}, {"text": "two cats", "id": 3}]', ("a cat", "two cats")),
        ("[applause]", ("[applause]",)),
        ("[1, 2]", ("[1, 2]",)),
        ("[]", ()),
        ('{"width": 3}', ()),
        (b"caf\xc3\xa9", ("café",)),
        (7, ("7",)),
        (float("nan"), ()),
        (None, ()),
        (True, ()),
    ],
)
def test_a_value_holds_one_caption_several_or_none(value, expected):
    assert captions.of(value) == expected


ROWS = [("a.mp4", ["a man reads", "a man sits"]), ("b.mp4", ["a dog"]), ("c.png", [])]


def table(path, text):
    path.write_text(text, encoding="utf-8")


def as_csv(path, write=str):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "caption"), *((n, write(t)) for n, t in ROWS)])


def parquet(path):
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.Table.from_pylist([{"path": name, "cap": texts} for name, texts in ROWS])
    parquet.write_table(rows, path)


SEVERAL = {
    "captions.csv": lambda path: as_csv(path),
    "metadata.csv": lambda path: as_csv(path, json.dumps),
    "captions.jsonl": lambda path: table(
        path, "\n".join(json.dumps({"file": name, "caption": texts}) for name, texts in ROWS)
    ),
    "captions.json": lambda path: table(path, json.dumps(dict(ROWS))),
    "metadata.json": lambda path: table(
        path, json.dumps([{"path": name, "cap": texts} for name, texts in ROWS])
    ),
    "captions.parquet": parquet,
    "metadata.tsv": lambda path: table(
        path, "image\tcaption\na.mp4\ta man reads\nb.mp4\ta dog\na.mp4\ta man sits\nc.png\t\n"
    ),
    "Captions.CSV": lambda path: table(
        path, "file,caption_1,caption_2\na.mp4,a man reads,a man sits\nb.mp4,a dog,\nc.png,,\n"
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_table_gives_all_captions_of_a_file(name, folder):
    SEVERAL[name](folder / name)
    assert read(folder) == {name: tuple(texts) for name, texts in ROWS}


def test_a_caption_that_is_an_object_is_named(folder):
    row = {"file": "a.mp4", "caption": {"en": "a cat", "de": "eine Katze"}}
    (folder / "captions.jsonl").write_text(json.dumps(row))
    found = find.find(folder)
    assert not any(item.captions for item in found)
    assert "neither a text nor a list of texts" in found.problems[0].reason


# --- quotes


TEXTS = ['"once upon a time', "a dog", 'the end"', 'a 12" pizza', '"red" ball', '"Hello!"']


def test_a_tsv_of_joined_cells_keeps_its_quotes(tmp_path):
    rows = [f"{number}.png\t{text}" for number, text in enumerate(TEXTS)]
    (tmp_path / "t.tsv").write_text("\n".join(["file\tcaption", *rows]))
    assert [row["caption"] for _, row in caption_tables.rows(tmp_path / "t.tsv")] == TEXTS


@pytest.mark.parametrize(
    ("quoting", "texts"),
    [
        (csv.QUOTE_MINIMAL, ["plain", 'say "so"', "two\nlines", "a\ttab"]),
        (csv.QUOTE_ALL, ["plain", "none needs them"]),
    ],
)
def test_a_tsv_of_a_writer_of_csv_loses_its_quotes(quoting, texts, tmp_path):
    with (tmp_path / "t.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=quoting)
        writer.writerows([("file", "caption"), *(("a.mp4", text) for text in texts)])
    assert [row["caption"] for _, row in caption_tables.rows(tmp_path / "t.tsv")] == texts


def test_excel_encloses_cells_with_commas(tmp_path):
    (tmp_path / "t.tsv").write_text('file\tcaption\na.mp4\t"a man, reading"\nb.mp4\ta dog\n')
    rows = [row["caption"] for _, row in caption_tables.rows(tmp_path / "t.tsv")]
    assert rows == ["a man, reading", "a dog"]


def test_what_is_a_guess_is_noted_with_the_flag_that_overrides_it(folder):
    (folder / "captions.tsv").write_text('file\tcaption\ttitle\na.mp4\t"red" ball\tx\n')
    found = find.find(folder)
    assert next(iter(found)).captions == ('"red" ball',)
    columns, quotes = sorted(found.notes, key=len, reverse=True)
    assert "not from title; --fields=file=NAME,caption=NAME" in columns
    assert quotes == (
        "captions.tsv: its quotes are part of the captions; --fields=quotes=yes differs"
    )
    (folder / "captions.tsv").write_text('file\tcaption\na.mp4\t"Hello!"\n')
    assert read(folder)["a.mp4"] == ('"Hello!"',)
    assert read(folder, fields={"quotes": "yes"})["a.mp4"] == ("Hello!",)
    with pytest.raises(UserError, match="--fields=quotes='maybe' must be one of yes, no"):
        find.find(folder, fields={"quotes": "maybe"})


# --- columns and names of files


@pytest.mark.parametrize(
    "text",
    [
        ",file,caption\n0,a.mp4,x\n1,b.mp4,y\n",  # pandas: the index under an empty name
        "file;caption\na.mp4;x\nb.mp4;y\n",
        "file\tcaption\na.mp4\tx\nb.mp4\ty\n",
        "file_name,text\n./a.mp4,x\n.\\b.mp4,y\n",
        "video_path,prompt\na,x\nb,y\n",  # without suffixes
        "file,caption\nROOT/a.mp4,x\nfile://ROOT/b.mp4,y\n",
    ],
)
def test_tables_of_other_tools_name_the_same_files(text, folder):
    (folder / "captions.csv").write_text(text.replace("ROOT", str(folder)))
    assert read(folder) == {"a.mp4": ("x",), "b.mp4": ("y",), "c.png": ()}


def test_a_json_may_have_an_object_per_line(folder):
    (folder / "captions.json").write_text(
        '{"file_name":"a.mp4","text":"x"}\n{"file_name":"b.mp4","text":"y"}\n'
    )
    assert read(folder) == {"a.mp4": ("x",), "b.mp4": ("y",), "c.png": ()}
    (folder / "captions.json").write_text('{"file_name":"a.mp4","text":"x"}\n{"file')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        find.find(folder)


def test_a_table_at_the_top_names_files_of_any_folder(tmp_path):
    for name in ("videos/a.mp4", "more/b.mp4", "more/c.mp4", "videos/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "captions.csv").write_text("file,caption\na.mp4,x\nb,y\nc.mp4,z\n")
    found = find.find(tmp_path)
    assert {item.key: item.captions for item in found} == {
        "more/b.mp4": ("y",), "more/c.mp4": (), "videos/a.mp4": ("x",), "videos/c.mp4": (),
    }  # fmt: skip
    assert [problem.name for problem in found.problems] == ["c.mp4"]  # of two files


@pytest.mark.parametrize(
    "name, text",
    [
        ("test.csv", "key,video_id,sentence\nk0,gone,z\nk1,a,x\nk2,b,y\n"),
        ("labels.csv", "vid,label\na,x\nb,y\n"),
        ("all.csv", "file,caption\ngone.mp4,z\na.mp4,x\nb.mp4,y\n"),
        ("list.json", '[{"id": "gone", "text": "z"}, {"id": "a", "text": "x"},'
         ' {"id": "b", "text": "y"}]'),
    ],
)  # fmt: skip
def test_tables_of_other_names_are_known_by_the_files_that_they_name(name, text, folder):
    """By ids, too; the first of the videos may be gone."""
    (folder / name).write_text(text)
    assert read(folder) == {"a.mp4": ("x",), "b.mp4": ("y",), "c.png": ()}
    assert any("--layout=none" in note for note in find.find(folder).notes)


def test_a_table_of_classes_is_no_table_of_files(tmp_path):
    (tmp_path / "0.png").touch()
    (tmp_path / "classes.csv").write_text("id,label\n0,cat\n1,dog\n")
    assert read(tmp_path) == {"0.png": ()}


def test_rows_of_jsonl_without_the_column_of_captions_are_named(folder):
    rows = [{"file": "a.mp4", "text": "x"}, {"file": "b.mp4", "caption": "y"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(folder)["b.mp4"] == ()
    assert [problem.reason for problem in find.find(folder).problems] == [
        "captions.jsonl:2: it has no text: no caption"
    ]


def test_letters_of_macos_are_the_same_letters(tmp_path):
    (tmp_path / "cafe\u0301.mp4").touch()
    (tmp_path / "captions.csv").write_text("file,caption\ncaf\u00e9.mp4,x\n", "utf-8")
    assert list(read(tmp_path).values()) == [("x",)]


def test_an_empty_column_name_is_no_overflow(tmp_path):
    (tmp_path / "t.csv").write_text(",file,file\n0,a,b,c\n")
    ((_, row),) = caption_tables.rows(tmp_path / "t.csv")
    assert row == {"": "0", "file": "a", "file.1": "b", caption_tables.OVERFLOW: "c"}


# --- flags


@pytest.mark.parametrize(
    ("flag", "dropped"),
    {
        "NSFW": True, "True": True, "true": True, "1": True, "1.0": True, "yes": True, "0.9": True,
        "UNLIKELY": False, "False": False, "0": False, "0.02": False, "no": False, "nan": False,
    }.items(),
)  # fmt: skip
def test_a_flag_is_true_in_any_of_its_forms(flag, dropped):
    item = items.RawItem("a", "image", b"", nsfw=flag)
    assert (filters.Filters().item(item) == f"nsfw: flagged {flag}") == dropped
    assert filters.Filters(drop_nsfw=()).item(item) is None
    assert filters.Filters(drop_nsfw=("UNSURE",)).item(item) is None


@pytest.mark.parametrize(
    "content", [{"nsfw": True}, {"is_nsfw": 1}, {"NSFW": "NSFW"}, {"nsfw_score": 0.9}]
)
def test_flags_of_sidecars_and_tables_are_read(content, folder):
    (folder / "a.json").write_text(json.dumps(content | {"caption": "x"}))
    (item, *_) = find.find(folder)
    assert filters.Filters().item(item).startswith("nsfw: flagged")
    (folder / "captions.jsonl").write_text(json.dumps(content | {"file": "a.mp4", "text": "x"}))
    (item, *_) = find.find(folder)
    assert filters.Filters().item(item).startswith("nsfw: flagged")


def test_bounds_of_words_choose_among_the_captions_of_an_item():
    item = items.RawItem("a", "image", b"", ("one", "one two", "one two three"))
    assert filters.Filters(min_words=2, max_words=2).captions(item) == ("one two",)
    assert filters.Filters(min_words=2).item(item) is None
    assert "too short: 3 words, 4 needed" in filters.Filters(min_words=4).item(item)
    assert "too long: 1 words" in filters.Filters(max_words=0).item(item)


# --- classes


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "ApplyEyeMakeup": "apply eye makeup",
        "Archery": "archery",
        "BMXRiding": "bmx riding",
        "YoYo": "yo yo",
        "brush_hair": "brush hair",
        "adult+female+singing": "adult female singing",
        "BMX": "BMX",
        "Tai Chi": "Tai Chi",
        "iPhone": "iPhone",
    }.items(),
)
def test_a_class_name_becomes_words(name, expected):
    assert items.words(name) == expected
    assert items.class_caption(name, "a video of {}") == (f"a video of {expected}",)


def test_cells_may_be_huge(tmp_path):
    text = "[" + "'a' " * 50_000
    assert captions.of(text + "]") == ("a",)
    assert captions.of(text + "x]") == (" ".join((text + "x]").split()),)
    cell = '"' + "," * 200_000 + 'x" y'
    (tmp_path / "t.tsv").write_text(f"file\tcaption\na.mp4\t{cell}\n")
    assert [row["caption"] for _, row in caption_tables.rows(tmp_path / "t.tsv")] == [cell]
