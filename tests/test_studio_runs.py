"""The studio's page of runs: curves, samples and config differences, of its folder alone."""

import json
import os
import shutil

import pytest
import tiny
from studio import Client, running

from phenaki.errors import UserError
from phenaki.studio import runs
from phenaki.studio.engine import Engine


@pytest.fixture
def folder(tmp_path):
    for number, rate in enumerate((0.1, 0.2)):
        run = tmp_path / "runs" / f"group/run{number}"
        (run / "samples").mkdir(parents=True)
        config = {"optim": {"rate": rate}, "train": {"steps": 900}}
        (run / "config.json").write_text(json.dumps(config))
        lines = [{"step": step, "loss/masked": 1 / (step + 1), "lr": rate} for step in range(901)]
        lines[5]["loss/masked"] = float("nan")
        (run / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        for name in ("9.png", "100.png", "20.png"):
            (run / "samples" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "runs/not_a_run").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "runs/group/run0/samples/link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path / "runs"


def test_runs_are_compared(folder):
    found = runs.Runs(folder)
    assert found.names() == ["group/run0", "group/run1"]
    told = found.compared(found.names(), "loss")
    assert list(told["curves"]) == ["loss/masked"]
    points = told["curves"]["loss/masked"]["group/run0"]
    assert runs.POINTS <= len(points) + 2 <= runs.POINTS + 5
    assert (points[0], points[-1][0]) == ([0, 1.0], 900)
    assert told["differences"] == [["optim.rate", "0.1", "0.2"]]
    assert told["samples"]["group/run0"] == ["9.png", "20.png", "100.png"]
    with pytest.raises(UserError, match="there is no such run"):
        found.compared(["../.."], "loss")


def test_a_run_whose_name_is_no_text_hides_no_other(folder, caplog):
    name = os.fsdecode(b"group/\xff\xfe")
    shutil.copytree(folder / "group/run0", folder / name, symlinks=True)
    (folder / "group/run1/samples" / os.fsdecode(b"\xff.png")).write_bytes(b"\x89PNG\r\n\x1a\n")
    found = runs.Runs(folder)
    for _ in range(2):
        assert found.names() == ["group/run0", "group/run1"]
        assert json.dumps(found.compared(found.names(), "loss"), ensure_ascii=False).encode()
    assert caplog.text.count("whose name is not UTF-8 is not shown") == 2  # of the run, the sample


def test_a_line_that_was_added_is_there_at_the_next_look(folder):
    found = runs.Runs(folder)
    with (folder / "group/run0/metrics.jsonl").open("a") as file:
        file.write('{"step": 1000, "loss/masked": 0.5}\n{"step": 10')
    points = found.compared(["group/run0"], "loss")["curves"]["loss/masked"]["group/run0"]
    assert points[-1] == [1000, 0.5]


def test_samples_of_runs_are_served_and_nothing_else(folder, tmp_path):
    tiny.phenaki().save(tmp_path / "model")
    engine = Engine(tmp_path / "model")
    with running(engine, tmp_path / "out", runs=folder) as (_, port):
        client = Client(port)
        assert client.get("/api/runs") == ["group/run0", "group/run1"]
        query = "/api/runs/compared?run=group%2Frun0&run=group%2Frun1&filter=lr"
        assert list(client.get(query)["curves"]) == ["lr"]
        assert client.ask("GET", "/runs/group%2Frun0/9.png")[2][:4] == b"\x89PNG"
        for path in ("link.png", "..%2fconfig.json", "%2e%2e/config.json", "none.png"):
            assert client.ask("GET", f"/runs/group%2Frun0/{path}")[0] == 404
        assert client.ask("GET", "/runs/%2e%2e/secret.png")[0] == 404
