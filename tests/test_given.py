"""Values that cannot be meant: options, scene lengths, frames and prompts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.sampling import given, options
from phenaki.sampling.windows import Scene, check_scenes, windows
from phenaki.train import workdir

NUMBERS = ("guidance", "choice_temperature", "temperature", "top_p", "critic_guidance",
           "critic_noise")  # fmt: skip
DEFAULTS = options.Defaults({"steps": 4, "choice_temperature": 1.0, "guidance": 1.0})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_option_is_nan_or_infinite(name, value):
    with pytest.raises(UserError, match=f"^{name}="):
        options.SamplingOptions(**{**DEFAULTS.sample, name: np.float32(value)})


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("steps", 10**6), ("steps", -3), ("top_k", -1), ("top_p", 1.5), ("top_p", -0.1),
     ("temperature", -1.0), ("choice_temperature", -1.0), ("critic_noise", -1.0)],
)  # fmt: skip
def test_options_outside_their_ranges_are_named_with_the_nearest_one(name, value):
    with pytest.raises(UserError, match=rf"^{name}={value} must be at (least|most) [\d.e+]+\.$"):
        options.resolve(DEFAULTS, **{name: value})


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0.0, -1.0, 1e300])
def test_lengths_of_scenes_are_finite(seconds):
    with pytest.raises(UserError, match="scene 1: "):
        windows([Scene("a red circle", seconds)], tiny.phenaki().spec, 5)


def test_a_story_has_scenes_and_nothing_else():
    with pytest.raises(UserError, match=r"scene 2: \('b', 1\.4\) must be a .*Scene, such as"):
        check_scenes([Scene("a", 1.4), ("b", 1.4)])
    with pytest.raises(UserError, match="at least one scene"):
        check_scenes([])


def test_uint8_frames_are_those_divided_by_255():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16, 1)
    np.testing.assert_array_equal(given.frames(levels), levels.astype(np.float32) / 255)


def test_frames_that_cannot_be_meant_are_refused_and_unknown_ones_do_not_matter():
    video = np.full((1, 2, 4, 4, 3), 0.5, np.float32)
    np.testing.assert_array_equal(given.frames(video.astype(np.float64)), video)
    for value in (math.nan, math.inf, -0.5, 1.5, 255.0):
        wrong = video.copy()
        wrong[0, 1, 2, 3, 0] = value
        with pytest.raises(UserError, match=r"given frames have .*must lie in \[0, 1\]"):
            given.frames(wrong)
        known = np.ones(video.shape[:-1], bool)
        known[0, 1] = False
        given.frames(wrong, known)
    for path in ("first.png", Path("first.png")):
        with pytest.raises(UserError, match="are the path 'first.png'; phenaki.io.images.read_fr"):
            given.frames(path)
    with pytest.raises(UserError, match="given frames are <U9; they must be uint8"):
        given.frames(["first.png"])
    for dtype in (np.int64, np.uint16, bool, object):
        with pytest.raises(UserError, match="must be uint8"):
            given.frames(video.astype(dtype))


@pytest.mark.parametrize("texts", ["a red circle", b"a", [], [3], [["a"]]])
def test_prompts_are_a_list_of_texts(texts):
    with pytest.raises(UserError, match="^prompts"):
        given.prompts(texts)


def test_every_call_of_a_model_looks_at_what_it_is_given():
    model = tiny.phenaki()
    spec = model.spec
    video = np.full((1, 5, spec.height, spec.width, 3), 0.5, np.float32)
    texts = ["a red circle"]
    for wrong in (video * 255, np.where(np.arange(5)[:, None, None, None] == 4, np.nan, video)):
        for call in (
            lambda x: model.extend(x, texts, seed=0),
            lambda x: model.animate(x[:, -1], texts, seed=0),
            lambda x: model.reconstruct(x),
            lambda x: model.encode(x),
            lambda x: model.sample(texts, seed=0, video=x),
        ):
            with pytest.raises(UserError, match="given frames"):
                call(wrong)
    with pytest.raises(UserError, match="prompts='a red circle': must be a list"):
        model.generate("a red circle", seed=0)


def test_a_run_of_before_schemas_goes_on_with_its_own_config(tmp_path):
    config = tiny.whole_config().to_dict()
    workdir.claim(tmp_path, config)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    del fields["schema"], fields["sums"]
    path.write_text(json.dumps(fields))
    workdir.claim(tmp_path, config)
    with pytest.raises(UserError, match="another config.model.depth"):
        other = tiny.whole_config(model={"depth": 2}).to_dict()
        workdir.claim(tmp_path, other)
