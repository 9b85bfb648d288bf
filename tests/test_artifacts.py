"""Files are complete or absent, for concurrent readers and after a kill."""

import threading

import pytest
import tiny

from phenaki.data import token_files
from phenaki.data.prepare import manifest
from phenaki.errors import UserError
from phenaki.io import artifacts, checkpoint, paths


def test_a_config_that_is_rewritten_is_complete_at_any_time(tmp_path):
    # Every process of a job reads it while the first one rewrites it.
    config, stop = tiny.whole_config(), threading.Event()
    checkpoint.save_config(tmp_path, config.to_dict())

    def write():
        while not stop.is_set():
            checkpoint.save_config(tmp_path, config.to_dict())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(500):
            assert checkpoint.load_config(tmp_path).to_dict()["train"] == config.train.to_dict()
    finally:
        stop.set()
        writer.join()


def test_an_unfinished_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "figures.json"
    artifacts.write_json(path, {"seconds": 1})
    with pytest.raises(KeyboardInterrupt), artifacts.atomic(path) as partial:
        partial.write_text("{")
        raise KeyboardInterrupt
    assert path.read_text() == '{"seconds": 1}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]
    artifacts.write_json(path, {"seconds": 2})
    assert path.read_text() == '{"seconds": 2}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "figures.json"
    with artifacts.atomic(path) as first, artifacts.atomic(path) as second:
        first.write_text("one")
        second.write_text("two")
    assert path.read_text() == "one"  # it is replaced last
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_a_marker_is_read_back_or_none(tmp_path):
    marker, name = tmp_path / "a.done", tmp_path / "a"
    assert artifacts.marked(marker) is None and paths.size(name) == -1
    with artifacts.atomic(name) as partial:
        partial.write_bytes(b"content")
    assert artifacts.checksum(name) == {
        "bytes": 7,
        "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
    }
    artifacts.mark(marker, {"origin": "x", "caption": "\u00e9"})
    assert artifacts.marked(marker) == {"origin": "x", "caption": "\u00e9"}
    for content in ('{"origin"', "3"):
        marker.write_text(content)
        assert artifacts.marked(marker) is None


@pytest.mark.parametrize("content", ['{"schema": 3, "fi', "", "[1]"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", checkpoint.load_config),
        (token_files.MANIFEST, token_files.read_manifest),
        (manifest.NAME, manifest.camera),
    ],
)
def test_damaged_json_is_one_line_that_names_the_file(tmp_path, name, read, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name}: (is cut short|must be a dictionary)") as found:
        read(str(tmp_path))
    assert "\n" not in str(found.value)


def test_tokens_without_a_schema_are_encoded_again(tmp_path):
    (tmp_path / token_files.MANIFEST).write_text("{}")
    with pytest.raises(UserError, match="schema None is not"):
        token_files.read_manifest(tmp_path)
