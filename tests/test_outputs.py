"""Nothing that is not ours is written over or removed: the rule for the outputs of all commands."""

import json
import os

import pytest

from phenaki.errors import UserError
from phenaki.io import apart, outputs, owner


def take(folder, kind="samples", inputs=(), flag="output"):
    with outputs.claimed(flag, folder, kind, inputs):
        assert (folder / outputs.MARKER).is_file() and (folder / owner.OWNER).is_file()
    assert not (folder / owner.OWNER).exists()


def contents(root):
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("kind", outputs.KINDS)
def test_a_folder_is_empty_or_of_the_same_kind(tmp_path, kind):
    take(tmp_path / "a" / "new", kind)
    (tmp_path / "empty").mkdir()
    take(tmp_path / "empty", kind)
    (tmp_path / "empty" / "of_the_user.txt").write_text("stays")
    take(tmp_path / "empty", kind)
    assert (tmp_path / "empty" / "of_the_user.txt").read_text() == "stays"
    for other in outputs.KINDS.keys() - {kind}:
        before = contents(tmp_path)
        with pytest.raises(UserError, match=f"empty: holds '{kind}' of .*new or empty folder"):
            take(tmp_path / "empty", other)
        assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", outputs.KINDS)
@pytest.mark.parametrize(
    "name",
    ["thesis.txt", "config.json", "manifest.json", "codes.json", "bundle.json", "features.json",
     "sample_0.mp4", "laion.tfrecord-00000-of-00001", ".hidden", "weights/vgg.pth"],
)  # fmt: skip
def test_something_else_is_refused_by_name_and_stays(tmp_path, kind, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text('{"mine": 1}')
    before = contents(tmp_path)
    with pytest.raises(UserError) as raised:
        take(tmp_path / "mine", kind)
    line = str(raised.value)
    assert f"--output={tmp_path}/mine: is not empty (it has {name.split('/')[0]})" in line
    assert outputs.KINDS[kind].command in line and "\n" not in line
    assert contents(tmp_path) == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: is a file; give a folder"):
        take(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", sorted(outputs.OTHERS))
def test_files_of_the_system_do_not_make_a_folder_somebodys(tmp_path, name):
    (tmp_path / name).write_text("")
    take(tmp_path)
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("name", ["README", "README.md", "log.txt", "train_log.txt", "run.log"])
def test_notes_and_logs_do_not_make_a_folder_somebodys_and_stay(tmp_path, name):
    (tmp_path / name).write_text("of my run")
    take(tmp_path)
    with pytest.raises(UserError, match="exists, and is not of"):
        outputs.enlist(tmp_path, [name])
    assert (tmp_path / name).read_text() == "of my run"


@pytest.mark.parametrize("more", ["holiday.mp4", "sample_a.png", "samples.txt"])
def test_films_among_other_files_are_not_of_an_earlier_version(tmp_path, more):
    for name in ("sample_0.mp4", "sample_0.gif", "sample_0.png", more):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="is not empty"):
        take(tmp_path, "samples")


def test_the_log_that_the_shell_opened_is_not_somebodys(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr("sys.__stdout__", log)
        take(tmp_path)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("data set", {"manifest.json": {"config_sha256": "", "records": {}, "files": {}}}),
        ("data set", {".uploading": {}, "a.tfrecord-00000-of-00001": 1}),
        ("tokens", {"codes.json": {"origin": {}, "files": {}}, "a.tfrecord-00000-of-00001": 1}),
        ("tokens", {"a.tfrecord-0.done": {"origin": "", "input": ""}, "a.tfrecord-0": 1}),
        ("run", {"config.json": {"video": {}, "data": {}, "train": {}}, "metrics.jsonl": 1}),
        ("samples", {"story_report.json": {"windows_made": 1}, "story.mp4": 1}),
        ("samples", {"sample_0.mp4": 1, "sample_0.gif": 1, "sample_0.png": 1, "sample_1.png": 1}),
        ("windows", {f"{'0a' * 12}.npz": 1}),
        ("evaluation", {"real-0123456789ab/settings.json": {"per_shard": 1}}),
        ("evaluation", {"table3-cvivit.json": {"records": []}}),
        ("model", {"bundle.json": {"schema": 1, "config": {}}}),
        ("programs", {"programs.json": {"programs": {}, "mask_id": 1}}),
        ("weights", {"vgg16.npz": 1}),
        ("demo", {"seconds.json": {"stage 1": 1, "stage 2": 2}, "report.html": 1}),
        ("preparation", {"spool/a.clips": 1, "written/a.json": 1, "set/a": 1}),
    ],
)
def test_outputs_of_earlier_versions_are_known_without_a_marker(tmp_path, kind, files):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    for other in outputs.KINDS.keys() - {kind}:
        with pytest.raises(UserError):
            outputs.admit("output", tmp_path, other)
    take(tmp_path, kind)


# --- apart from inputs


def test_outputs_and_inputs_never_contain_each_other(tmp_path):
    home = tmp_path / "home"
    (home / "in").mkdir(parents=True)
    (home / "in" / "table.csv").write_text("file,caption")
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "to_in").symlink_to(home / "in")
    before = contents(tmp_path)
    for output, given, word in [
        (home / "in", home / "in", "be"),
        (home / "in" / "out", home / "in", "lie inside"),
        (home / "in" / "a" / ".." / "b", home / "in", "lie inside"),
        (home, home / "in", "contain"),
        (home, home / "in" / "table.csv", "contain"),
        (tmp_path / "to_in", home / "in", "be"),
        (tmp_path / "to_in" / "out", home / "in", "lie inside"),
        (tmp_path / "link", home / "in", "contain"),
        (tmp_path / "link", tmp_path / "to_in", "contain"),
        (home / "in" / "later", tmp_path / "link", "lie inside"),
    ]:
        with pytest.raises(UserError) as raised:
            take(output, inputs=[("data", None), ("input", given)])
        assert f"--output={output}: must not {word} --input={given};" in str(raised.value)
        assert contents(tmp_path) == before
    take(home / "in_too", inputs=[("input", home / "in"), ("captions", "")])


@pytest.mark.parametrize(
    ("output", "given", "word"),
    [
        ("gs://bucket/a", "gs://bucket/a", "be"),
        ("gs://bucket/a/b", "gs://bucket/a/", "lie inside"),
        ("gs://bucket/a", "gs://bucket/a/b/c.csv", "contain"),
        ("gs://bucket/a", "gs://bucket/ab", ""),
        ("gs://bucket/a", "a", ""),
    ],
)
def test_so_it_is_in_buckets(output, given, word):
    if not word:
        apart.check_apart("output", output, [("input", given)])
        return
    with pytest.raises(UserError, match=f"--output={output}: must not {word} --input={given};"):
        apart.check_apart("output", output, [("input", given)])


# --- links


def test_a_link_is_the_folder_behind_it(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("disk", "later/below"):
        link = tmp_path / f"to_{name[:4]}"
        link.symlink_to(tmp_path / name)
        take(link)
        assert link.is_symlink() and (tmp_path / name / outputs.MARKER).is_file()


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="loop"):
        take(tmp_path / "loop")


# --- files in a folder


def test_only_listed_files_are_replaced_or_removed(tmp_path):
    take(tmp_path)
    outputs.enlist(tmp_path, ["a_0", "a_1", "b"], replaced="a_.")
    for name in ("a_0", "a_1", "b", "a_2"):  # the last is somebody's
        (tmp_path / name).write_text(name)
    outputs.enlist(tmp_path, ["a_0"], replaced="a_.")
    assert sorted(contents(tmp_path)) == [outputs.MARKER, "a_2", "b"]
    before = contents(tmp_path)
    with pytest.raises(UserError, match="a_2: exists, and is not of scripts/sample.py; move it"):
        outputs.enlist(tmp_path, ["a_1", "a_2"], replaced="a_.")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["../precious", "/precious", "..", ".", 3, None, "a/b"])
def test_a_marker_that_lists_other_places_removes_nothing_there(tmp_path, name):
    (tmp_path / "precious").write_text("stays")
    folder = tmp_path / "out"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b").write_text("stays")
    marker = {"kind": "samples", "files": [name]}
    (folder / outputs.MARKER).write_text(json.dumps(marker))
    outputs.enlist(folder, [], replaced=".*")
    assert (tmp_path / "precious").is_file() and (folder / "a" / "b").is_file()


def test_a_failure_before_anything_is_written_leaves_no_folder(tmp_path):
    def fail(folder, write=None):
        with pytest.raises(UserError, match="no such model"):
            with outputs.claimed("output", folder, "samples"):
                if write:
                    (folder / write).write_text("sampled")
                raise UserError("no such model")

    fail(tmp_path / "runs" / "deep" / "out")
    assert not (tmp_path / "runs").exists()
    # Folders of others stay, also empty ones, and what was written or had been there does.
    (tmp_path / "runs").mkdir()
    fail(tmp_path / "runs" / "out")
    fail(tmp_path / "runs")
    assert contents(tmp_path) == {} and (tmp_path / "runs").is_dir()
    (tmp_path / "runs" / "out.log").write_text("of the shell")
    fail(tmp_path / "runs")
    assert contents(tmp_path) == {"runs/out.log": b"of the shell"}
    fail(tmp_path / "written", "sample_0.mp4")
    assert sorted(contents(tmp_path / "written")) == [outputs.MARKER, "sample_0.mp4"]
    take(tmp_path / "empty")
    assert (tmp_path / "empty" / outputs.MARKER).is_file()
    # A second process that is refused removes nothing of the first.
    with outputs.claimed("output", tmp_path / "held", "samples"):
        before = contents(tmp_path / "held")
        with pytest.raises(UserError, match="another run is writing"):
            take(tmp_path / "held")
        assert contents(tmp_path / "held") == before
