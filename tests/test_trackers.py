"""--track sends the lines of metrics.jsonl to a tracker, one run over all resumes, or is one line.

The libraries are stand-ins with the functions that both have; see their own tests for the rest.
"""

import json
import sys
import types

import pytest
import toy

from phenaki.errors import UserError
from phenaki.planning import speed
from phenaki.train import logs, profiler, trackers


@pytest.fixture(params=["wandb", "trackio"])
def library(request, monkeypatch):
    """A stand-in, which notes what it is called with."""
    module = types.ModuleType(request.param)
    module.begun, module.lines, module.ended = [], [], 0

    def end():
        module.ended += 1

    module.init = lambda **options: module.begun.append(options)
    module.log = lambda values, step: module.lines.append((step, values))
    module.finish = end
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def test_every_metric_is_sent_and_a_resumed_run_is_the_same(library, tmp_path):
    for start in (0, 2):
        tracker = trackers.Tracker(library.__name__, tmp_path / "run", {"seed": 1, "shape": (1, 2)})
        log = logs.Logs(tmp_path / "run", start, tracker)
        log.scalars(start + 1, {"loss": 2.0})
        log.scalars(start + 2, {"loss": 1.0})
        log.close()
        tracker.close()
    written = [(line["step"], {"loss": line["loss"]}) for line in logs.read(tmp_path / "run")]
    assert library.lines == written and [step for step, _ in written] == [1, 2, 3, 4]
    assert library.ended == 2
    first, second = library.begun
    assert first == second and first["resume"] == "allow" and first["project"] == "phenaki"
    assert first["config"] == {"seed": 1, "shape": [1, 2]}
    (identity,) = json.loads((tmp_path / "run/track.json").read_text()).values()
    assert identity in (first.get("id"), first["name"].rpartition("-")[2])


def test_two_runs_are_two(library, tmp_path):
    for name in ("a", "b"):
        trackers.Tracker(library.__name__, tmp_path / name / "cvivit", {})
    one, other = library.begun
    assert (one.get("id"), one["name"]) != (other.get("id"), other["name"])


def test_a_tracker_that_refuses_is_one_line(library, tmp_path):
    def refuse(**_):
        raise RuntimeError("no key\nlog in")

    library.init = refuse
    with pytest.raises(UserError, match="cannot start: no key log in"):
        trackers.Tracker(library.__name__, tmp_path, {})


def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"--track=trackio: needs pip install"):
        speed.observe("", "trackio")  # of a command, before it makes a run
    with pytest.raises(UserError, match=r"--track=trackio: needs pip install"):
        trackers.Tracker("trackio", tmp_path, {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="--track='wand' must be one of wandb, trackio; did you"):
        trackers.Tracker("wand", tmp_path, {})


def test_a_run_is_tracked_until_it_ends(library, tmp_path):
    observe = profiler.Observe(track=library.__name__)
    for steps in (2, 4):
        toy.run(tmp_path / "run", steps=steps, log_every=1, save_every=2, observe=observe)
    assert [step for step, values in library.lines if "loss/total" in values] == [1, 2, 3, 4]
    assert library.ended == 2 and library.begun[0]["config"]["kind"] == "maskgit"
