"""Faults of a run: bad losses, SIGTERM, damaged and unwritable checkpoints, a hang."""

import contextlib
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import toy
from tensorboard.backend.event_processing import event_accumulator

from phenaki.errors import Preempted, UserError
from phenaki.io import checkpoint_manager, checksums
from phenaki.train import logs, loop, skip_updates, state, tokenizer
from phenaki.train.stage import RunOptions

NAN, INF = float("nan"), float("inf")


def summed(*numbers):
    """What `toy.run` gives for these batches."""
    return sum(numbers) + len(numbers) / 2


def lines(workdir):
    return [{k: v for k, v in line.items() if "second" not in k} for line in logs.read(workdir)]


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
    assert checkpoint_manager.Checkpoints(tmp_path).latest >= 4
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
    since = {"objective": {"loss": {"l2": 1.0}}, "joined": False, "change": ""}
    for content in (stored, stored | since):  # an earlier version stored no objective
        skips = skip_updates.SkipUpdates(20.0, 3, 3, objective={"loss": {"l2": 1.0}})
        skips.restore(content, step=9)
        assert (skips.consecutive_skips, skips.skipped, skips.rollbacks) == (2, 5, 1)
        assert skips.state() == stored | since | {"block": [], "lowest": None}


def test_a_loss_that_climbs_is_warned_of_and_ends_the_run(tmp_path, caplog):
    """7 % a step: from 1 to 10^12 in 400 steps, never 20 times the mean of the last 200."""
    climb = {step: float(np.exp(0.069 * step)) for step in range(260)}
    options = dict(steps=240, save_every=40, log_every=20)
    guard = dict(spike=20.0, patience=10, tries=1)
    with pytest.raises(skip_updates.Diverged, match=r"loss/total is \S+, above \S+ at step"):
        toy.run(tmp_path, climb, guard=guard, **options)
    warned = [text for text in caplog.messages if "loss/total climbs: its mean over 20" in text]
    assert len(warned) == 1 and "was" in warned[0]
    assert max(line.get("loss/total", 0) for line in lines(tmp_path)) < 1e7
    caplog.clear()
    toy.run(tmp_path / "off", climb, guard=guard | dict(spike=0.0), **options)
    assert "climbs" in caplog.text


def test_a_climb_is_measured_from_the_lowest_mean_and_a_resumed_run_knows_it():
    def steps(*losses):
        return [{"loss/total": x, "grad_norm": 1.0, skip_updates.SKIPPED: False} for x in losses]

    skips = skip_updates.SkipUpdates(20.0, 3, 3)
    skips.update(steps(*[5.0] * 100, *[2.0] * 100), 200)
    assert skips.limits(200)["loss/total"] == 40  # a spike is above 20 x 3.5
    resumed = skip_updates.SkipUpdates(20.0, 3, 3)
    resumed.restore(json.loads(json.dumps(skips.state())), 200)
    assert resumed.limits(200)["loss/total"] == 40
    below = skip_updates.SkipUpdates(20.0, 3, 3)  # a loss below 0 has no ratio
    below.update(steps(*[-2.0] * 200), 200)
    assert below.limits(200)["loss/total"] == 40


# --- a changed objective


def applied(loss):
    return {"loss/total": loss, "grad_norm": 1.0, "skipped": False}


def trained(monkeypatch, steps, **options):
    """`SkipUpdates` after that many steps with a loss of 1."""
    monkeypatch.setattr(skip_updates, "RECENT", 3)
    skips = skip_updates.SkipUpdates(spike=5.0, patience=2, max_rollbacks=9, **options)
    skips.update([applied(1.0)] * steps, steps)
    return skips


def limit(skips, step):
    return float(skips.limits(step)["loss/total"])


def test_a_loss_is_compared_with_those_of_the_same_objective(monkeypatch):
    skips = trained(monkeypatch, 8, joins=10)
    # Limits are asked for ahead of the logs: step 10 is the first with the discriminator.
    assert [limit(skips, step) for step in (8, 9)] == [5.0, 5.0]
    assert limit(skips, 10) > 1e30
    skips.update([applied(1.0)] * 2 + [applied(100.0)] * 2, 12)
    assert limit(skips, 12) > 1e30
    skips.update([applied(100.0)], 13)
    assert limit(skips, 13) == 500.0
    # After a roll-back to a checkpoint from before, the discriminator is not there.
    assert limit(skips, 9) > 1e30
    skips.update([applied(1.0)] * 3, 10)
    assert limit(skips, 9) == 5.0


def test_the_diagnosis_names_what_joined(monkeypatch):
    skips = trained(monkeypatch, 10, joins=10)
    bad = {"loss/total": NAN, "grad_norm": 1.0, "skipped": True}
    skips.update([bad, bad], 12)
    with pytest.raises(skip_updates.Diverged) as raised:
        skips.roll_back(12, None, bad)
    assert "after the discriminator joined at step 10 (config.gan.start)" in str(raised.value)
    assert "Lower the weight of what was added (config.loss)" in str(raised.value)
    before = trained(monkeypatch, 8, joins=10)
    before.update([bad, bad], 10)
    with pytest.raises(skip_updates.Diverged) as raised:
        before.roll_back(10, None, bad)
    assert "joined" not in str(raised.value)
    assert "Lower config.optim.rate" in str(raised.value)


def test_a_weight_that_changes_on_resuming_starts_the_means_anew(monkeypatch, caplog):
    stored = json.loads(json.dumps(trained(monkeypatch, 8, objective={"l2": (1.0, 2.0)}).state()))
    same = trained(monkeypatch, 0, objective={"l2": (1.0, 2.0)})
    same.restore(stored, step=8)
    assert limit(same, 8) == 5.0
    assert not caplog.text
    other = trained(monkeypatch, 0, objective={"l2": (1.0, 9.0), "new": 1})
    other.restore(stored, step=8)
    assert "config.l2 ([1.0, 2.0] to [1.0, 9.0]) changed at step 8" in caplog.text
    assert limit(other, 8) > 1e30
    # The first two were not logged before the interruption: they are of the old objective.
    other.update([applied(1.0)] * 2 + [applied(50.0)] * 2, 10)
    assert limit(other, 10) > 1e30
    other.update([applied(50.0)], 11)
    assert limit(other, 11) == 250.0


def test_the_options_of_a_run_say_what_joins_and_when():
    config = tiny.tokenizer_config(gan=dict(start=7))
    assert RunOptions.of(config.to_dict()).joins is None
    config.loss.adversarial = 0.1
    options = RunOptions.of(config.to_dict())
    assert (options.joins, options.objective["loss"]["adversarial"]) == (7, 0.1)


def test_equation_2_trains_through_the_join_of_its_discriminator(tmp_path, monkeypatch):
    monkeypatch.setattr(skip_updates, "RECENT", 3)
    config = tiny.tokenizer_config(
        loss=dict(adversarial=100.0),  # the loss is a hundred times what it was
        gan=dict(width=8, frames=1, start=5),
        guard=dict(spike=5.0, patience=2, tries=0),
        train=dict(steps=9, save_every=5),
    )
    final = tokenizer.train(config, tmp_path, toy.ONE)
    logged = lines(tmp_path)
    assert [line["skipped"] for line in logged] == [0] * 9
    assert logged[5]["loss/total"] > 5 * 3 * logged[4]["loss/total"]
    assert all(np.isfinite(list(line.values())).all() for line in logged)
    own = final.extra["discriminator"]["opt_state"]
    assert {int(leaf) for leaf in jax.tree.leaves(own) if leaf.ndim == 0} == {4}


# --- what is new or gone on resuming


def with_extra(**extra):
    return state.create(
        {"kernel": jnp.ones((8, 2))}, optax.adam(1.0), {"counts": jnp.ones(3), **extra}
    )


def network(value, width=4):
    params = {"kernel": jnp.full((width, 2), value)}
    return {"params": params, "opt_state": optax.adam(1.0).init(params)}


def test_a_network_that_a_checkpoint_lacks_starts_fresh_and_one_that_it_has_besides_is_dropped(
    tmp_path, caplog
):
    def restored(stored, wanted, **arguments):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        with contextlib.closing(checkpoint_manager.Checkpoints(directory)) as checkpoints:
            checkpoints.save(3, stored, {})
            checkpoints.wait()
            return checkpoints.restore(wanted, **arguments)[0]

    bare, joined = with_extra(), with_extra(discriminator=network(2.0))
    both = restored(bare, with_extra(discriminator=network(5.0), sums=jnp.zeros(7)))
    assert both.extra["discriminator"]["params"]["kernel"].max() == 5
    assert both.extra["sums"].shape == (7,)
    fresh = restored(bare, with_extra(discriminator=network(5.0)), fresh=lambda: joined)
    assert fresh.extra["discriminator"]["params"]["kernel"].max() == 2
    assert "the checkpoint of step 3 has no discriminator: it starts fresh." in caplog.text
    caplog.clear()
    without = restored(with_extra(discriminator=network(2.0), sums=jnp.ones(2)), bare)
    assert without.extra.keys() == {"counts"}
    assert "has a discriminator that this config does not train: it is dropped." in caplog.text
    assert len(caplog.records) == 2
    caplog.clear()
    same = restored(joined, with_extra(discriminator=network(0.0)))
    assert same.extra["discriminator"]["params"]["kernel"].max() == 2
    assert not caplog.records
    with pytest.raises(UserError, match=r"kernel has shape \(4, 2\), this config's \(6, 2\)"):
        restored(joined, with_extra(discriminator=network(0.0, width=6)))
    assert not list(tmp_path.rglob("damaged"))


# --- logs of an abandoned line


def raw_steps(workdir):
    written = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in written]


def shown_steps(workdir):
    events = event_accumulator.EventAccumulator(str(workdir / "events"))
    events.Reload()
    return [event.step for event in events.Scalars("loss/total")]


def test_logs_of_steps_after_the_restored_checkpoint_are_dropped(tmp_path):
    toy.run(tmp_path, steps=6, save_every=4, log_every=1)
    shutil.rmtree(tmp_path / "checkpoints" / "6")  # killed before it was written
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "loss/to')  # and in the middle of a line
    time.sleep(1.1)  # event files are named by the second
    toy.run(tmp_path, {5: 1000.0}, steps=7, save_every=4, log_every=1)
    assert raw_steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
    assert lines(tmp_path)[4]["loss/total"] == 1000
    assert shown_steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]


def test_logs_of_steps_that_were_rolled_back_are_dropped(tmp_path):
    bad = dict.fromkeys((5, 6, 7), NAN)
    toy.run(tmp_path, bad, guard=dict(patience=3), steps=8, save_every=4, log_every=1)
    assert raw_steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert shown_steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_run_goes_back_to_an_older_checkpoint_once(tmp_path, caplog):
    toy.run(tmp_path, steps=6, save_every=2, log_every=1, keep=9)
    fields = dict(save_every=2, log_every=1, keep=9, from_step=2)
    final = toy.run(tmp_path, {4: 1000.0}, steps=4, **fields)
    assert int(final.step) == 4
    assert raw_steps(tmp_path) == [1, 2, 3, 4]
    assert lines(tmp_path)[3]["loss/total"] == 1000
    aside = tmp_path / "abandoned/after_2"
    assert sorted(os.listdir(aside)) == ["4", "6"]
    # The command of a job that restarts is the same: it resumes from step 4.
    toy.run(tmp_path, steps=6, **fields)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4", "6"]
    assert lines(tmp_path)[3]["loss/total"] == 1000
    assert "config.train.from_step=2 was done before" in caplog.text
    message = r"from_step=5: must be the step of a checkpoint in .* \(2, 4, 6\); nearest is 4\."
    with pytest.raises(UserError, match=message):
        toy.run(tmp_path, steps=8, **fields | {"from_step": 5})
    fresh = tmp_path / "fresh"
    with pytest.raises(UserError, match=r"from_step=7: .* \(none\); nearest is 0"):
        toy.run(fresh, steps=8, **fields | {"from_step": 7})
    assert not fresh.exists()  # no config.json that would refuse another start
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4", "6"]


def test_a_refused_run_leaves_no_thread_and_its_config(tmp_path):
    toy.run(tmp_path, steps=1)
    before = (tmp_path / "config.json").read_text()
    running = set(threading.enumerate())
    refused = (dict(model={"width": 24}), dict(mesh={"data": 3}), dict(data={"batch": 7}))
    for fields in refused:
        with pytest.raises(UserError):
            toy.run(tmp_path, config=tiny.whole_config(**fields), devices=jax.devices())
        assert set(threading.enumerate()) <= running
    assert (tmp_path / "config.json").read_text() == before


def test_steps_beyond_the_decay_are_reported(tmp_path, caplog):
    config = tiny.whole_config(train=dict(steps=3), optim=dict(decay=2, warmup=0))
    toy.run(tmp_path / "beyond", config=config)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "config.train.steps=3 is above config.optim.decay=2" in warning
    caplog.clear()
    config.optim.decay = 3
    toy.run(tmp_path / "within", config=config)
    assert not caplog.records


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
    assert checkpoint_manager.Checkpoints(tmp_path / "parts").latest == tick
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
    step = checkpoint_manager.Checkpoints(tmp_path / "run").latest
    final = toy.run(tmp_path / "run", steps=step + 1, save_every=10_000, log_every=1)
    np.testing.assert_array_equal(final.params["kernel"], summed(*range(1, step + 2)))


def test_few_steps_are_dispatched_ahead(tmp_path, monkeypatch):
    in_flight = []

    def watched(batch, mesh, rows, of=loop.sharding.global_batch):
        mine = [x for x in jax.live_arrays() if x.dtype == np.float16]
        in_flight.append(sum(not x.is_ready() for x in mine))
        return of(batch, mesh, rows)

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
    assert checkpoint_manager.Checkpoints(tmp_path / "run").latest == 2


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
        "from phenaki.io.checkpoint_manager import Checkpoints\n"
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
