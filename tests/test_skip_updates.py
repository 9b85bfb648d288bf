"""Faults of a run: bad losses, SIGTERM, damaged and unwritable checkpoints, a hang."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import toy

from phenaki.errors import Preempted, UserError
from phenaki.io import checkpoint, checksums
from phenaki.train import logs, loop, skip_updates

NAN, INF = float("nan"), float("inf")


def summed(*numbers):
    """What `toy.run` gives for these batches."""
    return sum(numbers) + len(numbers) / 2


def lines(workdir):
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in logs.read(workdir)]


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_an_update_with_a_loss_that_is_not_finite_is_skipped_and_counted(loss, tmp_path):
    final = toy.run(tmp_path, {3: loss}, steps=6, save_every=6, log_every=2)
    assert int(final.step) == 6
    np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 4, 5, 6))
    assert [line["skipped"] for line in lines(tmp_path)] == [0, 1, 1]
    # The line is that of the applied update.
    assert lines(tmp_path)[1]["loss/total"] == 2 * summed(1, 2, 4)


def test_a_spike_is_not_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(skip_updates, "RECENT", 3)
    final = toy.run(
        tmp_path, {2: 400.0, 6: 400.0}, guard=dict(spike=20.0), steps=7, save_every=7, log_every=1
    )
    # Before there are three updates to compare with, nothing is a spike.
    np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 3, 4, 5, 6, 7))
    values = {2: 4.0, 6: 400.0}
    other = tmp_path / "other"
    final = toy.run(other, values, guard=dict(spike=5.0), steps=7, save_every=7, log_every=1)
    np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 3, 4, 5, 7))
    off = toy.run(
        tmp_path / "off", values, guard=dict(spike=0.0), steps=7, save_every=7, log_every=1
    )
    np.testing.assert_array_equal(off.params["kernel"], summed(1, 2, 3, 4, 5, 6, 7))


def test_after_many_bad_steps_the_run_rolls_back_and_takes_other_data(tmp_path, caplog):
    bad = dict.fromkeys((5, 6, 7), NAN)
    final = toy.run(tmp_path, bad, guard=dict(patience=3), steps=8, save_every=2, log_every=1)
    # Step 4 was saved, 6 was not. Batches 5 to 7 are the bad ones; 8 to 11 take their place.
    np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 3, 4, 8, 9, 10, 11))
    assert "loss/total is nan (also loss/l2) at step 7, 3 updates in a row" in caplog.text
    assert "rolling back to step 4" in caplog.text


def test_too_many_roll_backs_stop_with_a_diagnosis(tmp_path):
    bad = dict.fromkeys(range(5, 40), NAN)
    message = (
        r"loss/total is nan \(also loss/l2\) at step \d+, and 3 updates in a row were skipped; "
        r"rolled back 2 times\. Lower config\.optim\.rate"
    )
    with pytest.raises(skip_updates.Diverged, match=message):
        toy.run(tmp_path, bad, guard=dict(patience=3, tries=2), steps=20, save_every=2, log_every=1)
    assert checkpoint.Checkpoints(tmp_path).latest >= 4
    with pytest.raises(skip_updates.Diverged, match="no checkpoint to roll back to"):
        toy.run(
            tmp_path / "none", dict.fromkeys(range(9), NAN), guard=dict(patience=3),
            steps=8, save_every=8, log_every=1,
        )  # fmt: skip


def test_what_a_checkpoint_stores_of_skipped_updates_keeps_its_names():
    stored = {
        "recent": {"loss/total": [1.0, 2.0], "grad_norm": [], "gan/grad_norm": []},
        "row": 2,
        "skipped": 5,
        "went_back": 1,
    }
    skips = skip_updates.SkipUpdates(spike=20.0, patience=3, max_rollbacks=3)
    skips.restore(stored)
    assert (skips.consecutive_skips, skips.skipped, skips.rollbacks) == (2, 5, 1)
    assert skips.state() == stored


@pytest.mark.parametrize("tick", [1, 3, 4, 6])
def test_preempted_at_any_step_and_resumed_equals_uninterrupted(tick, tmp_path, monkeypatch):
    fields = dict(steps=8, save_every=4, log_every=2, bad={2: NAN, 5: NAN})
    whole = toy.run(tmp_path / "whole", **fields)
    given = loop.PreemptionSignal.given
    monkeypatch.setattr(
        loop.PreemptionSignal, "given", lambda self: given(self) or self._ticks == tick
    )
    with pytest.raises(Preempted, match=f"preempted at step {tick}; checkpoint saved"):
        toy.run(tmp_path / "parts", **fields)
    assert checkpoint.Checkpoints(tmp_path / "parts").latest == tick
    monkeypatch.undo()
    final = toy.run(tmp_path / "parts", **fields)
    np.testing.assert_array_equal(whole.params["kernel"], final.params["kernel"])
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


PROGRAM = """
import sys
sys.path.insert(0, {helpers!r})
import pathlib, threading, time
import toy
from phenaki import cli
from phenaki.data import batches

{patch}
cli.run(lambda argv: toy.run(pathlib.Path(sys.argv[0]).parent / "run", **{fields!r}))
"""


def start(tmp_path, patch="", **fields):
    program = tmp_path / "program.py"
    helpers = os.path.join(os.path.dirname(__file__), "helpers")
    program.write_text(PROGRAM.format(helpers=helpers, patch=patch, fields=fields))
    return subprocess.Popen(
        [sys.executable, str(program)], stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
    )  # fmt: skip


def test_sigterm_ends_in_a_checkpoint_and_exit_code_143(tmp_path):
    slow = "toy.counting = lambda t, of=toy.counting: (time.sleep(0.2) or b for b in of(t))"
    process = start(
        tmp_path, f"{slow}\ntoy.run.__globals__['counting'] = toy.counting",
        steps=10_000, save_every=10_000, log_every=1,
    )  # fmt: skip
    written = tmp_path / "run" / "metrics.jsonl"
    while not (written.is_file() and written.read_text().count("\n") > 3):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    assert "preempted at step" in stderr and "Traceback" not in stderr
    step = checkpoint.Checkpoints(tmp_path / "run").latest
    final = toy.run(tmp_path / "run", steps=step + 1, save_every=10_000, log_every=1)
    np.testing.assert_array_equal(final.params["kernel"], summed(*range(1, step + 2)))


def test_few_steps_are_dispatched_ahead(tmp_path, monkeypatch):
    in_flight = []

    def watched(batch, mesh, of=loop.sharding.global_batch):
        mine = [x for x in jax.live_arrays() if x.dtype == np.float16]
        in_flight.append(sum(not x.is_ready() for x in mine))
        return of(batch, mesh)

    monkeypatch.setattr(loop.sharding, "global_batch", watched)
    toy.run(tmp_path, slow=300, steps=12, save_every=12, log_every=12)
    assert len(in_flight) == 12
    assert 0 < max(in_flight) <= loop.AHEAD


def test_a_hang_ends_the_process_with_its_stacks(tmp_path):
    stuck = (
        "def never(taken):\n"
        "    yield from [batch for batch, _ in zip(make(taken), range(3))]\n"
        "    threading.Event().wait()\n"
        "make = toy.counting\n"
        "toy.run.__globals__['counting'] = never"
    )
    process = start(
        tmp_path, stuck, steps=9, save_every=2, log_every=1, guard=dict(hang_minutes=0.1)
    )
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Timeout (0:00:06)!" in stderr and "in never" in stderr and "in run" in stderr
    assert checkpoint.Checkpoints(tmp_path / "run").latest == 2


# --- checkpoints


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run with checkpoints at steps 2 and 4."""
    directory = tmp_path_factory.mktemp("kept") / "run"
    toy.run(directory, steps=4, save_every=2, log_every=2)
    return directory


# Where a read fails Orbax leaves readers behind, which warn when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_checkpoint_is_skipped_and_moved_aside(damage, kept, tmp_path, caplog):
    seen = 0
    for number, name in enumerate(sorted(_files(kept))):
        run = tmp_path / str(number)
        shutil.copytree(kept, run)
        path = run / "checkpoints" / "4" / name
        content = bytearray(path.read_bytes())
        if damage == "gone":
            path.unlink()
        else:
            content[len(content) // 2] ^= 4
            path.write_bytes({"flip": content, "cut": content[:-9], "empty": b""}[damage])
        caplog.clear()
        final = toy.run(run, steps=6, save_every=2, log_every=2)
        # The same numbers wherever the damage is: from step 2 if it matters, else from step 4.
        np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 3, 4, 5, 6))
        if skipped := (run / "damaged").is_dir():
            assert "the checkpoint of step 4 is damaged" in caplog.text
            assert "resuming from step 2" in caplog.text
            assert os.listdir(run / "damaged") == ["4"]
        seen += skipped
        gc.collect()
    assert seen


def _files(run):
    root = run / "checkpoints" / "4"
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


def test_the_sums_see_every_flipped_bit_of_an_array(kept, tmp_path):
    state = {"kernel": jax.numpy.arange(16.0).reshape(8, 2), "step": jax.numpy.int32(3)}
    before = checksums.array_sums(state)
    for index in range(16):
        for bit in range(32):
            bits = np.asarray(state["kernel"]).view(np.uint32).copy()
            bits.reshape(-1)[index] ^= np.uint32(1 << bit)
            other = state | {"kernel": jax.numpy.asarray(bits.view(np.float32))}
            assert checksums.array_sums(other) != before


def test_a_run_from_before_checksums_and_skipped_updates_resumes(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "4" / "data" / "metadata"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"taken": content["data"]["taken"]}))
    final = toy.run(tmp_path / "run", steps=6, save_every=2)
    np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 3, 4, 5, 6))
    assert not (tmp_path / "run" / "damaged").exists()


def test_where_every_checkpoint_fails_none_is_moved(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "run")
    for step in (2, 4):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step) / "state")
    with pytest.raises(Exception, match="state"):
        toy.run(tmp_path / "run", steps=6)
    assert sorted(os.listdir(tmp_path / "run" / "checkpoints")) == ["2", "4"]


def test_a_full_disk_stops_in_one_line_and_keeps_the_last_good_one(tmp_path):
    small = (
        "import resource, signal\n"
        "from phenaki.io.checkpoint import Checkpoints\n"
        "save = Checkpoints.save\n"
        "def limited(self, step, *rest):\n"
        "    if step > 2:\n"
        "        self.wait()\n"
        "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))\n"
        "    save(self, step, *rest)\n"
        "Checkpoints.save = limited"
    )
    process = start(tmp_path, small, steps=9, save_every=2, log_every=9)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    # Messages of Orbax's threads may precede it on the same line.
    (line,) = re.findall(r"error: (.*)", stderr)
    assert "a checkpoint could not be written" in line and "that of step 2 is complete" in line
    final = toy.run(tmp_path / "run", steps=4, save_every=2)
    np.testing.assert_array_equal(final.params["kernel"], summed(1, 2, 3, 4))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("a file in the way")
    with pytest.raises((UserError, OSError), match="checkpoints"):
        toy.run(tmp_path / "run", steps=2)
