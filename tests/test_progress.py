"""The progress line: count, rate and time left, in place on a terminal."""

import itertools
import sys

from phenaki import progress
from phenaki.progress import Progress


def clock(monkeypatch, seconds):
    ticks = itertools.count(0.0, seconds)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))


def test_progress_outside_a_terminal_is_a_line_every_ten_seconds(monkeypatch, capsys):
    clock(monkeypatch, seconds=4.0)
    with Progress(12, "train", done=2) as shown:
        for step in range(10):
            shown.update(note=f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "train: 5/12 (41%), 0.25/s, 0:28 left, loss 2",
        "train: 8/12 (66%), 0.25/s, 0:16 left, loss 5",
        "train: 11/12 (91%), 0.25/s, 0:04 left, loss 8",
        "train: 12/12 (100%), 0.227/s, took 0:44",
    ]


def test_the_last_line_has_the_note_that_it_is_closed_with(monkeypatch, capsys):
    clock(monkeypatch, seconds=4.0)
    with Progress(1, "train") as shown:
        shown.update(note="loss 2")
        shown.close("loss 1")
    assert capsys.readouterr().err == "train: 1/1 (100%), 0.125/s, took 0:08, loss 1\n"


def test_only_one_process_of_a_job_shows_progress(monkeypatch, capsys):
    clock(monkeypatch, seconds=20.0)
    with Progress(2, "train", shown=False) as hidden:
        hidden.update()
    assert capsys.readouterr().err == ""
    assert hidden.done == 1


def test_progress_rewrites_one_line_on_a_terminal(monkeypatch, capsys):
    clock(monkeypatch, seconds=1.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2, "decode") as shown:
        shown.update()
        shown.update()
        shown.close()
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.split("\r")[1:] == [
        "decode: 1/2 (50%), 0/s, ? left\x1b[K",
        "decode: 2/2 (100%), 1/s, 0:00 left\x1b[K",
        "decode: 2/2 (100%), 0.667/s, took 0:03\x1b[K\n",
    ]
