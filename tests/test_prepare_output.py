"""Where a prepared data set goes: links, data sets that are replaced, and files of the user."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from phenaki.data.prepare import publish, run
from phenaki.errors import UserError


@pytest.fixture
def options(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        image = Image.fromarray(np.full((16, 16, 3), 9 * number, np.uint8))
        image.save(tmp_path / "in" / f"{number}.png")
    size = dict(height=16, width=16, validation=0.0)
    return run.PrepareOptions(tmp_path / "in", tmp_path / "set", **size)


def contents(folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: files[name] for name in files if "report" not in name}  # it has the seconds


@pytest.mark.parametrize("name", ["disk", "later"])
def test_an_output_that_is_a_link_is_the_folder_behind_it(options, tmp_path, name):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / name)
    run.prepare(dataclasses.replace(options, output=link))
    assert link.is_symlink() and (tmp_path / name / "features.json").is_file()
    run.prepare(options)
    assert contents(tmp_path / name) == contents(tmp_path / "set")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_replaced_data_set_leaves_files_of_the_user(options, tmp_path):
    run.prepare(options)
    (tmp_path / "set" / "notes.txt").write_text("mine")
    (tmp_path / "set" / "folder").mkdir()
    (tmp_path / ".set.old").mkdir()
    (tmp_path / ".set.old" / "thesis").write_text("mine")
    (tmp_path / "in" / "0.png").unlink()
    run.prepare(dataclasses.replace(options, overwrite=True, encoding="png"))
    found = contents(tmp_path / "set")
    assert found.pop("notes.txt") == b"mine" and (tmp_path / "set" / "folder").is_dir()
    assert (tmp_path / ".set.old" / "thesis").read_text() == "mine"
    run.prepare(dataclasses.replace(options, output=tmp_path / "fresh", encoding="png"))
    assert found == contents(tmp_path / "fresh")


def test_somebodys_file_of_a_needed_name_stops_it_before_anything_is_removed(options, tmp_path):
    run.prepare(options)
    before = contents(tmp_path / "set")
    options = dataclasses.replace(options, overwrite=True, hosts=2)
    for name in ("clips-image_train.tfrecord-00000-of-00002",):
        (tmp_path / "set" / name).write_text("mine")
        (tmp_path / "in" / "2.png").unlink(missing_ok=True)  # two shards instead of three
        with pytest.raises(UserError, match=f"{name}: exists, and is not of the data set there"):
            run.prepare(options)
        assert (tmp_path / "set" / name).read_text() == "mine"
        (tmp_path / "set" / name).unlink()
        assert contents(tmp_path / "set") == before


def test_an_input_inside_the_output_is_refused_also_with_overwrite(options, tmp_path):
    run.prepare(options)
    shutil.copytree(tmp_path / "in", tmp_path / "set" / "in")
    inside = dataclasses.replace(options, input=tmp_path / "set" / "in", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "set" / "in")
    through = dataclasses.replace(inside, input=tmp_path / "link")
    table = dataclasses.replace(options, captions=f"{tmp_path}/set/report.txt", overwrite=True)
    for chosen in (inside, through, table):
        with pytest.raises(UserError, match="set: must not contain --"):
            run.prepare(chosen)
    assert len(list((tmp_path / "set" / "in").iterdir())) == 3


def test_a_replacement_that_is_killed_is_finished_by_the_same_command(
    options, tmp_path, monkeypatch
):
    run.prepare(options)
    (tmp_path / "set" / "notes.txt").write_text("mine")
    put, left = publish._put, [2]

    def kill(file, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        put(file, target)

    monkeypatch.setattr(publish, "_put", kill)
    monkeypatch.setattr(publish.paths, "in_threads", lambda do, names: [do(name) for name in names])
    again = dataclasses.replace(options, overwrite=True, encoding="png")
    with pytest.raises(KeyboardInterrupt):
        run.prepare(again)
    assert not (tmp_path / "set" / "features.json").exists()
    monkeypatch.setattr(publish, "_put", put)
    run.prepare(dataclasses.replace(again, overwrite=False))  # there is no data set to replace
    run.prepare(dataclasses.replace(again, output=tmp_path / "fresh"))
    assert contents(tmp_path / "set") == contents(tmp_path / "fresh") | {"notes.txt": b"mine"}
