"""A file is there whole or not at all: for one who reads meanwhile, and after a kill."""

import threading

import pytest
import tiny

from phenaki.io import artifacts, checkpoint


def test_a_config_that_is_written_again_reads_whole_at_any_moment(tmp_path):
    # Every process of a job reads it while the first one writes it again.
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


def test_what_was_begun_and_not_ended_leaves_the_old_file(tmp_path):
    path = tmp_path / "figures.json"
    artifacts.write_json(path, {"seconds": 1})
    with pytest.raises(KeyboardInterrupt), artifacts.atomic(path) as partial:
        partial.write_text("{")
        raise KeyboardInterrupt
    assert path.read_text() == '{"seconds": 1}\n'
    artifacts.write_json(path, {"seconds": 2})
    assert path.read_text() == '{"seconds": 2}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]
