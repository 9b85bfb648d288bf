"""One mask expresses every task: what is known stays bit by bit, and only it is seen."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.pipeline import Phenaki

PROMPTS = ["a red circle moves left", "a blue square moves up"]
VIDEO = np.random.default_rng(0).uniform(size=(2, 11, 16, 16, 3)).astype(np.float32)
OTHER = np.random.default_rng(1).uniform(size=VIDEO.shape).astype(np.float32)
EVERY = np.ones((11, 16, 16), bool)


def frames(*known):
    return EVERY & np.isin(np.arange(11), known)[:, None, None]


LEFT = EVERY & (np.arange(16) < 8)  # one column of patches of two
MIDDLE = EVERY & ~(np.isin(np.arange(16), range(8, 16))[:, None] & LEFT)  # a patch is missing
EXACT = {
    "text to video": frames(),
    "image to video": frames(0),
    "prediction": frames(0, 1, 2, 3, 4),
    "all but the end": frames(*range(9)),
}
APPROXIMATE = {
    "interpolation": frames(0, 1, 2, 9, 10),
    "backwards": frames(7, 8, 9, 10),
    "outpainting in space": LEFT,
    "inpainting in space": MIDDLE,
    "inpainting in time and space": EVERY & ~(frames(3, 4, 5, 6) & ~MIDDLE),
}


@pytest.fixture(scope="module")
def model():
    return tiny.phenaki()


def kept(model, sample, video, known):
    """Tokens of a sample that are `known`, and those of `video` at the same places."""
    encoded = np.asarray(model.encode(video))
    mask = np.broadcast_to(known, encoded.shape)
    return sample.tokens[:, : encoded.shape[1]][mask], encoded[mask]


@pytest.mark.parametrize("task", EXACT)
def test_known_frames_stay_and_unknown_ones_are_not_seen(model, task):
    known = EXACT[task]
    sample = model.sample(PROMPTS, video=VIDEO, known=known, seed=0)
    filled = sample.video
    assert (filled.shape, filled.dtype) == (VIDEO.shape, np.float32)
    np.testing.assert_array_equal(filled[:, known], VIDEO[:, known])
    latents = (known.all((1, 2)).sum() + 1) // 2
    standing, encoded = kept(model, sample, VIDEO, np.arange(6)[:, None, None] < latents)
    np.testing.assert_array_equal(standing, encoded)
    assert len(standing) == 2 * 4 * latents
    # The values of unknown pixels, NaN included, make no difference.
    other = np.where(known[..., None], VIDEO, np.nan)
    np.testing.assert_array_equal(filled, model.fill(other, known, PROMPTS, seed=0))
    if latents:
        assert np.any(filled[:, ~known] != model.fill(OTHER, known, PROMPTS, seed=0)[:, ~known])


@pytest.mark.parametrize("task", APPROXIMATE)
def test_approximate_tasks_keep_pixels_and_see_only_what_is_known(model, task):
    known = APPROXIMATE[task]
    with pytest.raises(UserError, match="approximate=True goes by each token's own pixels"):
        model.fill(VIDEO, known, PROMPTS, seed=0)
    sample = model.sample(PROMPTS, video=VIDEO, known=known, seed=0, approximate=True)
    filled = sample.video
    np.testing.assert_array_equal(filled[:, known], VIDEO[:, known])
    assert np.all(np.any(filled[:, ~known] != VIDEO[:, ~known], axis=-1))
    other = np.where(known[..., None], VIDEO, OTHER)
    np.testing.assert_array_equal(
        filled, model.fill(other, known, PROMPTS, seed=0, approximate=True)
    )
    # Known tokens stay, whatever the noise of the others.
    again = model.sample(PROMPTS, video=VIDEO, known=known, seed=1, approximate=True)
    own = np.concatenate([known[:1], known[1:].reshape(5, 2, 16, 16).all(1)])
    own = own.reshape(6, 2, 8, 2, 8).all((2, 4))
    assert own.any()
    np.testing.assert_array_equal(sample.tokens[:, own], again.tokens[:, own])
    assert np.any(filled != again.video)


def test_where_exact_is_possible_approximate_is_the_same(model):
    known = frames(0, 1, 2)
    exact = model.fill(VIDEO, known, PROMPTS, seed=0)
    close = model.fill(VIDEO, known, PROMPTS, seed=0, approximate=True)
    np.testing.assert_array_equal(exact, close)


def test_known_tokens_may_be_anywhere(model):
    known = np.random.default_rng(2).uniform(size=(2, 6, 2, 2)) < 0.5
    sample = model.sample(PROMPTS, video=VIDEO, known=known, seed=0)
    standing, encoded = kept(model, sample, VIDEO, known)
    np.testing.assert_array_equal(standing, encoded)
    assert sample.video.shape == VIDEO.shape
    np.testing.assert_array_equal(sample.video, model.fill(VIDEO, known, PROMPTS, seed=0))
    every = model.fill(VIDEO, np.ones((6, 2, 2), bool), PROMPTS, seed=0)
    np.testing.assert_array_equal(every, model.reconstruct(VIDEO))


def test_samples_may_know_different_things(model):
    known = np.stack([frames(0), frames(0, 1, 2, 3, 4)])
    both = model.fill(VIDEO, known, PROMPTS, seed=0)
    alike = model.fill(VIDEO, known[0], PROMPTS, seed=0)
    np.testing.assert_allclose(both[0], alike[0], atol=1e-5)
    assert np.any(both[1] != alike[1])
    np.testing.assert_array_equal(both[1, :5], VIDEO[1, :5])


def test_the_usual_tasks_are_masks(model):
    same = np.testing.assert_array_equal
    same(model.generate(PROMPTS, seed=0), model.fill(None, frames(), PROMPTS, seed=0))
    image = model.fill(None, np.zeros((1, 2, 2), bool), PROMPTS, seed=0)
    same(model.generate(PROMPTS, seed=0, frames=1), image)
    same(model.animate(VIDEO[:, 0], PROMPTS, seed=0), model.fill(VIDEO, frames(0), PROMPTS, seed=0))
    first = model.extend(VIDEO[:, :5], PROMPTS, seed=0)
    same(first, model.fill(VIDEO, frames(*range(5)), PROMPTS, seed=0))
    same(model.follow(VIDEO[:, :5], PROMPTS, seed=0), first[:, 5:])


def test_sixteen_frames_of_a_model_of_seventeen():
    """Kinetics-600, 5 to 11. Latent 8 makes frames 15 and 16, of which 16 is cut off."""
    config = tiny.whole_config(video=dict(frames=17))
    base = tiny.phenaki()
    params = dict(base.params)
    grow = {"encoder_time_position": 9, "decoder_time_position": 9}
    tokenizer = dict(params["tokenizer"])
    for name, length in grow.items():
        tokenizer[name] = np.resize(tokenizer[name], (length, tokenizer[name].shape[1]))
    params["tokenizer"], params["maskgit"] = tokenizer, _grown(params["maskgit"])
    model = Phenaki(config, params)
    video = np.concatenate([VIDEO, VIDEO[:, :5]], axis=1)[:1]
    known = np.zeros((16, 16, 16), bool)
    known[:5] = True
    sample = model.sample(PROMPTS[:1], video=video, known=known, seed=0)
    assert sample.video.shape == (1, 16, 16, 16, 3)
    assert sample.tokens.shape == (1, 9, 2, 2)
    np.testing.assert_array_equal(sample.video[:, :5], video[:, :5])
    standing, encoded = kept(model, sample, video[:, :5], True)
    np.testing.assert_array_equal(standing, encoded)


def test_the_page_about_it_runs(model, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "fill.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(Phenaki, "load", lambda path: model)
    names: dict = {}
    exec(compile(block, "fill.md", "exec"), names)
    half = model.spec.width // 2
    np.testing.assert_array_equal(names["between"][:, [4, 9]], names["video"][:, [4, 9]])
    np.testing.assert_array_equal(
        names["outpainted"][:, :, :, :half], names["video"][:, :, :, :half]
    )


def _grown(params):
    """MaskGIT's parameters with a position table for 9 latents in place of 6."""
    return params | {"position": np.resize(params["position"], (9 * 4, 16))}
