"""Progress of a call: a callback sees every decoding step, and changes no sample."""

import sys
import types

import numpy as np
import pytest
import tiny
from absl import logging

from phenaki import progress
from phenaki.errors import UserError
from phenaki.sampling import guidance
from phenaki.sampling.windows import Scene

PROMPTS = ["a red circle moves left", "a blue square moves up"]
FEW_PASSES = dict(schedule="late", order="halton", steps=5)


@pytest.fixture(scope="module")
def model():
    return tiny.phenaki()


@pytest.mark.parametrize("options", [{}, {"guidance": 2.0, "steps": 4}, FEW_PASSES, {"steps": 1}])
def test_a_callback_changes_no_sample(model, options):
    seen = []
    alone = model.sample(PROMPTS, seed=3, progress=False, **options)
    watched = model.sample(PROMPTS, seed=3, progress=seen.append, **options)
    np.testing.assert_array_equal(watched.tokens, alone.tokens)
    np.testing.assert_array_equal(watched.video, alone.video)
    assert watched.passes == alone.passes
    assert seen[-1].number == seen[-1].total == options.get("steps", 3)


def test_steps_fill_in_the_tokens_of_the_trace(model):
    seen = []
    sample = model.sample(PROMPTS, seed=1, trace=True, progress=seen.append)
    alone = model.sample(PROMPTS, seed=1, trace=True, progress=False)
    assert [step.number for step in seen] == [1, 2, 3]
    for name in ("history", "sampled", "scores"):
        np.testing.assert_array_equal(getattr(sample.trace, name), getattr(alone.trace, name))
    for step, history, sampled in zip(seen, alone.trace.history, alone.trace.sampled, strict=True):
        np.testing.assert_array_equal(step.tokens, history.reshape(2, 6, 2, 2))
        np.testing.assert_array_equal(step.sampled, sampled.reshape(2, 6, 2, 2))
    masked = [(step.tokens == step.mask_id).sum() for step in seen]
    assert masked[0] > masked[1] > 0
    np.testing.assert_array_equal(seen[-1].video(), sample.video)
    assert seen[0].video().shape == sample.video.shape


def test_skipped_steps_count_as_done(model):
    seen = []
    model.sample(PROMPTS[:1], seed=0, steps=60, guidance=0.0, progress=seen.append)
    numbers = [step.number for step in seen]
    assert numbers == sorted(numbers) and numbers[-1] == 60
    assert len(numbers) < 60


def test_what_a_callback_raises_ends_the_call(model):
    class Enough(Exception):
        pass

    seen = []

    def watch(step):
        seen.append(step.number)
        if step.number == 2:
            raise Enough

    with pytest.raises(Enough):
        model.generate(PROMPTS, seed=0, progress=watch)
    assert seen == [1, 2]


def test_a_story_counts_windows_and_steps(model):
    seen = []
    scenes = [Scene(PROMPTS[0], 1.4), Scene(PROMPTS[1], 0.75)]
    video, parts = model.story(scenes, seed=0, progress=seen.append)
    places = [(step.window, step.number) for step in seen]
    assert places == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert {step.windows for step in seen} == {2}
    np.testing.assert_array_equal(video, model.story(scenes, seed=0, progress=False)[0])


class Cell:
    """Where a notebook shows a bar."""

    def __init__(self):
        self.lines = []

    def display(self, content, raw, display_id):
        assert raw and display_id
        self.lines.append(content["text/plain"])
        return types.SimpleNamespace(update=self.update)

    def update(self, content, raw):
        assert raw
        self.lines.append(content["text/plain"])


def test_notebooks_show_a_bar_and_scripts_none(model, monkeypatch, capsys):
    model.generate(PROMPTS, seed=0)
    assert capsys.readouterr().err == ""
    shell, cell = type("ZMQInteractiveShell", (), {})(), Cell()
    python = types.SimpleNamespace(get_ipython=lambda: shell, display=cell)
    monkeypatch.setitem(sys.modules, "IPython", python)
    assert progress.in_notebook()
    model.generate(PROMPTS, seed=0)
    assert [line[-8:] for line in cell.lines] == ["step 1/3", "step 2/3", "step 3/3"]
    assert cell.lines[-1].startswith("█" * progress.Bar.WIDTH)
    model.generate(PROMPTS, seed=0, progress=False)
    assert len(cell.lines) == 3
    assert capsys.readouterr().err == ""


def test_a_guidance_scale_is_1_plus_lambda_and_logged(model, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    guidance._log_once.cache_clear()
    given = model.sample(PROMPTS, seed=0, guidance_scale=3.0)
    np.testing.assert_array_equal(given.tokens, model.sample(PROMPTS, seed=0, guidance=2.0).tokens)
    unguided = model.sample(PROMPTS, seed=0, guidance_scale=1)
    assert (given.passes, unguided.passes) == (6, 3)
    rule = "a scale is 1 + λ."
    assert lines == [f"guidance_scale={3 - x} is taken as guidance={2 - x}: {rule}" for x in (0, 2)]
    with pytest.raises(UserError, match=r"guidance_scale=3, guidance=2: give one"):
        model.sample(PROMPTS, seed=0, guidance_scale=3, guidance=2)
