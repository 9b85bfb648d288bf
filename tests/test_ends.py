"""Ends and odd places: lost connections, second writers, odd files, misread names."""

import importlib
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import toy
from PIL import Image

from phenaki.commands import main, training_flags
from phenaki.data.prepare import run
from phenaki.errors import UserError
from phenaki.io import artifacts, checkpoint_manager, checkpoint_steps, owner
from phenaki.stories import generate
from phenaki.train import logs
from phenaki.train.watchdog import PreemptionSignal

# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_connection_saves_as_a_preemption_does(number):
    before = signal.signal(number, signal.SIG_DFL)  # ignored where the tests run under nohup
    try:
        given = PreemptionSignal()
        assert not given.given()
        signal.raise_signal(number)
        assert given.given()
        given.close()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_nohup_is_obeyed():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        given = PreemptionSignal()
        signal.raise_signal(signal.SIGHUP)
        assert not given.given()
        given.close()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_has_not_begun_is_preempted_as_one_that_has(number, capsys):
    """Loading a large model, and compiling, take minutes before the first step."""
    training_flags.preemptible()
    with pytest.raises(SystemExit) as ended:
        signal.raise_signal(number)
    assert ended.value.code == 143
    assert capsys.readouterr().err == "preempted; start it again\n"


def test_before_the_first_step_nohup_is_obeyed_too():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    training_flags.preemptible()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_loop_takes_the_signals_and_gives_them_back(capsys):
    training_flags.preemptible()
    given = PreemptionSignal()
    signal.raise_signal(signal.SIGTERM)
    assert given.given()
    given.close()
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)
    assert capsys.readouterr().err == "preempted; start it again\n"


def test_an_interrupt_waits_until_a_module_is_loaded(tmp_path, monkeypatch, capsys):
    code = "import signal; signal.raise_signal(signal.SIGINT); whole = True"
    (tmp_path / "slow_to_load.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended, main._interruptible():
        loaded = importlib.import_module("slow_to_load")
        threading.Event().wait(60)
        raise AssertionError("the wait was not interrupted")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert loaded.whole


@pytest.mark.parametrize(("given", "code"), [("--help", 0), ("--nonsense", 2), ("sample", 2)])
def test_an_interrupt_while_python_ends_is_ignored(given, code):
    program = (
        "import atexit, os, signal, sys, threading, time\n"
        "def late():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.1)\n"
        "    print('whole', signal.getsignal(signal.SIGINT).name)\n"
        "atexit.register(late)\n"
        "threading.Thread(target=lambda: (threading.main_thread().join(), late())).start()\n"
        "from phenaki.commands import main\n"
        f"sys.argv = ['phenaki', {given!r}]\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.splitlines()[-2:] == ["whole SIG_IGN"] * 2
    assert len(done.stderr.splitlines()) == (code > 0) and "interrupt" not in done.stderr


def test_an_interrupt_while_garbage_is_collected_is_not_lost(capsys):
    class Garbage:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit, match="130"), main._interruptible():
        Garbage()
        threading.Event().wait(60)
        raise AssertionError("not interrupted")
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_after_loading_is_obeyed_at_once(capsys):
    with pytest.raises(SystemExit, match="130"), main._interruptible():
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not interrupted")
    assert capsys.readouterr().err == "interrupted\n"


# --- two writers


def test_a_second_training_is_refused_and_changes_nothing(tmp_path):
    toy.run(tmp_path, steps=2, save_every=2, log_every=1)
    with owner.owned(tmp_path, "x"):
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(UserError, match=f"--workdir={tmp_path}: another run is writing it"):
            toy.run(tmp_path, steps=4, save_every=2, log_every=1)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    toy.run(tmp_path, steps=4, save_every=2, log_every=1)
    assert [line["step"] for line in logs.read(tmp_path)] == [1, 2, 3, 4]
    assert not (tmp_path / owner.OWNER).exists()


def test_a_resumed_run_says_what_changed_and_a_finished_one_keeps_its_config(
    tmp_path, caplog, capsys
):
    toy.run(tmp_path, steps=2, save_every=2, log_every=1)
    toy.run(tmp_path, steps=4, save_every=4, log_every=1)
    logged = [record.getMessage() for record in caplog.records]
    assert "from step 2 on: config.train.steps is 4, no longer 2" in logged
    before = (tmp_path / "config.json").read_text()
    loss = f"loss {logs.read(tmp_path)[-1]['loss/total']:.3g}"
    assert re.search(rf"training: 4/4 \(100%\), .*, {re.escape(loss)}\n", capsys.readouterr().err)
    toy.run(tmp_path, steps=3, save_every=1, log_every=1)
    assert "training:" not in capsys.readouterr().err  # no 4/3 (133%)
    assert "has 4 steps; raise config.train.steps above that" in caplog.records[-1].getMessage()
    assert (tmp_path / "config.json").read_text() == before


def test_a_training_whose_place_was_taken_stops_before_its_next_checkpoint(tmp_path, monkeypatch):
    save = checkpoint_manager.Checkpoints.save

    def lose(self, step, state, data):
        save(self, step, state, data)
        artifacts.write_json(tmp_path / owner.OWNER, {"id": "another", "pid": 7, "host": "b"})

    monkeypatch.setattr(checkpoint_manager.Checkpoints, "save", lose)
    with pytest.raises(UserError, match="another run is writing it .process 7 on host b"):
        toy.run(tmp_path, steps=6, save_every=2, log_every=1)
    assert checkpoint_steps.complete_steps(tmp_path / "checkpoints") == [2]
    assert (tmp_path / owner.OWNER).exists()  # the other's


def test_a_run_is_not_started_among_somebodys_files(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="is not empty .it has config.json., and nothing of the"):
        toy.run(tmp_path, steps=2, save_every=2, log_every=1)
    assert os.listdir(tmp_path) == ["config.json"]


def test_two_stories_write_one_window_at_the_same_time(tmp_path, monkeypatch):
    frames, codes = np.zeros((11, 8, 8, 3), np.float32), np.zeros((6, 2, 2), np.int32)
    mine, other = generate.WindowCache(tmp_path), generate.WindowCache(tmp_path)
    fsync = os.fsync

    def between(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        other.write("0a" * 12, frames, codes)

    monkeypatch.setattr(os, "fsync", between)
    mine.write("0a" * 12, frames, codes)
    np.testing.assert_array_equal(mine.read("0a" * 12)[0], frames)
    assert sorted(os.listdir(tmp_path)) == [f"{'0a' * 12}.npz"]


# --- odd files and names


def test_an_odd_file_costs_itself_and_not_the_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    for name in ("loop.png", "loop.txt"):
        (folder / name).symlink_to(folder / name)
    (folder / "ping.mp4").symlink_to(folder / "pong.mp4")
    (folder / "pong.mp4").symlink_to(folder / "ping.mp4")
    (folder / "folder").symlink_to(folder)
    (folder / "gone.mp4").symlink_to(folder / "gone" / "b.mp4")
    for name in ("pipe.mp4", "a.txt", "captions.csv", "manifest.json"):
        os.mkfifo(folder / name)
    size = dict(height=16, width=16, validation=0.0)
    report = run.prepare(run.PrepareOptions(folder, tmp_path / "set", **size))
    assert report["clips"] == {"image_train": 1}
    named = {problem["name"] for problem in report["problems"]}
    assert {"loop.png", "loop.txt", "ping.mp4", "pong.mp4", "folder", "gone.mp4", "pipe.mp4",
            "a.txt", "captions.csv", "manifest.json"} <= named  # fmt: skip


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("[run]", "_run_"), ("a[1]/run", "a_1_/run"), ("a\\b", "a_b"), ("gs:/run", "gs/run")],
)
def test_a_name_that_checkpoints_cannot_be_read_from_is_refused(tmp_path, name, nearest):
    for write in (
        lambda: toy.run(tmp_path / name, steps=1, save_every=1),
        lambda: checkpoint_manager.Checkpoints(tmp_path / name),
    ):
        with pytest.raises(UserError, match=f"Orbax cannot read .*; nearest is .*/{nearest}.$"):
            write()
        assert os.listdir(tmp_path) == []


def test_other_odd_names_are_fine(tmp_path):
    workdir = tmp_path / "a b:c*?{d}%20#~é" / "run"
    toy.run(workdir, steps=2, save_every=1, log_every=1)
    toy.run(workdir, steps=3, save_every=1, log_every=1)
    assert [line["step"] for line in logs.read(workdir)] == [1, 2, 3]


def test_a_machine_that_lacks_files_does_not_make_a_checkpoint_damaged(tmp_path, monkeypatch):
    toy.run(tmp_path, steps=4, save_every=2, log_every=1)

    def lacking(self, step, state):
        raise ValueError(f"INTERNAL: opening: {os.strerror(24)}")

    monkeypatch.setattr(checkpoint_manager.Checkpoints, "_restore", lacking)
    with pytest.raises(UserError, match="step 4 cannot be read .Too many open files."):
        toy.run(tmp_path, steps=6, save_every=2, log_every=1)
    assert checkpoint_steps.complete_steps(tmp_path / "checkpoints") == [2, 4]


# --- a full disk


class Full:
    """A file of a disk that is full after some bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, content):
        self._room -= len(content)
        if self._room < 0:
            raise OSError(28, os.strerror(28))
        return self._file.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    open_after = logs._open_after
    monkeypatch.setattr(logs, "_open_after", lambda *a: Full(open_after(*a), 200))
    with pytest.raises(UserError, match="metrics.jsonl: cannot be written .No space left on dev"):
        toy.run(tmp_path, steps=40, save_every=2, log_every=1)
    monkeypatch.undo()
    toy.run(tmp_path, steps=8, save_every=2, log_every=1)
    assert [line["step"] for line in logs.read(tmp_path)] == list(range(1, 9))


SAVE = """
import resource, sys
import numpy as np
from phenaki import cli
from phenaki.io import checkpoint

def main(argv):
    random = np.random.default_rng(0)
    params = {str(n): random.standard_normal((64, 64)).astype("f4") for n in range(60)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, 2**13))
    checkpoint.save_bundle(argv[0] + ".bundle", params, {"video": {}, "tokenizer": {}})

cli.run(main)
"""


def test_a_bundle_that_cannot_be_written_is_one_line_and_no_bundle(tmp_path, run_script):
    program = tmp_path / "program.py"
    program.write_text(SAVE)
    done = run_script(program, quick=True)
    bundle = tmp_path / "program.py.bundle"
    assert done.stderr == (
        f"error: {bundle}: cannot be written (File too large); there is no bundle.\n"
    )
    assert done.returncode == 2 and not (bundle / "bundle.json").exists()


def test_events_that_cannot_be_written_do_not_stop_the_training(tmp_path, monkeypatch, caplog):
    writer = pytest.importorskip("tensorboardX.event_file_writer").EventsWriter

    def filling(method, room):
        def attempt(self, *arguments):
            room.pop()
            if not room:
                room.append(None)
                raise OSError(28, os.strerror(28))
            return method(self, *arguments)

        return attempt

    for name in ("write_event", "flush"):
        monkeypatch.setattr(writer, name, filling(getattr(writer, name), [None] * 4))
    toy.run(tmp_path, steps=40, save_every=40, log_every=1)  # more than its queue holds
    assert len(logs.read(tmp_path)) == 40
    lines = [r.getMessage() for r in caplog.records if "TensorBoard" in r.getMessage()]
    assert lines == ["TensorBoard's events are not complete: No space left on device"]
