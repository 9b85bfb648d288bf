"""Sampling as users do it: what is given stays, stories add up, what was saved loads."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.io import checkpoint, checkpoint_manager
from phenaki.pipeline import Phenaki
from phenaki.sampling import sampler, seeds
from phenaki.sampling.windows import Scene, Window, segments, windows
from phenaki.train import state
from phenaki.types import VideoSpec

PROMPTS = ["a red circle moves left", "a blue square moves up"]
GIVEN = np.random.default_rng(0).uniform(size=(2, 11, 16, 16, 3)).astype(np.float32)
PAPER = VideoSpec(frames=11, height=128, width=128, fps=8.0, patch=(2, 8, 8))


@pytest.fixture(scope="module")
def model():
    return tiny.phenaki()


# --- one window


def test_a_prompt_gives_a_clip(model):
    video = model.generate(PROMPTS, seed=0)
    assert (video.shape, video.dtype) == ((2, 11, 16, 16, 3), np.float32)
    assert 0 <= video.min() < video.max() <= 1
    np.testing.assert_array_equal(video, model.generate(PROMPTS, seed=0))
    assert np.any(video != model.generate(PROMPTS, seed=1))
    sample = model.sample(PROMPTS, seed=0, trace=True)
    np.testing.assert_array_equal(sample.video, video)
    assert (sample.tokens.shape, sample.tokens.dtype) == ((2, 6, 2, 2), np.int32)
    assert sample.trace.history.shape == (3, 2, 24)


def test_sampling_compiles_one_layer_of_those_that_training_unrolls(model):
    config = model.config.copy_and_resolve_references()
    config.unroll = 8
    unrolled = Phenaki(config, model.params)
    assert {
        network.unroll for network in unrolled.networks.values() if hasattr(network, "unroll")
    } == {1}
    assert unrolled.config.unroll == 8  # of training
    seen = [one.generate(PROMPTS, seed=0) for one in (unrolled, model)]
    np.testing.assert_array_equal(*seen)


def test_an_image_is_a_clip_of_one_frame(model):
    assert model.generate(PROMPTS, seed=0, frames=1).shape == (2, 1, 16, 16, 3)


def test_a_model_without_text_takes_no_prompts():
    alone = tiny.unconditional()
    assert alone.generate([None, " "], seed=0, guidance=2.0).shape == (2, *GIVEN.shape[1:])
    with pytest.raises(UserError, match=r"prompt='a red circle moves left': .* no text encoder"):
        alone.generate([None, PROMPTS[0]], seed=0)
    with pytest.raises(UserError, match=r"negative='fog': this model has no text encoder"):
        alone.animate(GIVEN[:1, 0], [None], seed=0, negative="fog")


def test_prompts_and_negative_texts_are_cleaned(model):
    options = dict(seed=2, guidance=3.0, temperature=2.0)
    once = model.sample(["a red circle"], negative="a blue square", **options)
    for prompt, negative in ((" a  red\ncircle", "a\tblue  square "), ("a red circle\n", None)):
        again = model.sample([prompt], negative=negative, **options)
        assert (np.array_equal(again.tokens, once.tokens)) == (negative is not None)


# --- seeds


@pytest.mark.parametrize("seed", [0, 5, 2**31 - 1, 2**31 + 7, 2**32 - 1])
def test_seeds_of_32_bits_have_the_keys_of_jax(seed):
    keys = [jax.random.fold_in(jax.random.key(seed), row) for row in range(3)]
    np.testing.assert_array_equal(
        jax.random.key_data(sampler.row_keys(seed, 3)), jax.random.key_data(jnp.stack(keys))
    )


def test_every_seed_of_64_bits_has_a_key_of_its_own(model):
    seeds = [
        low + (high << 32) for low in (0, 6, 2**32 - 1) for high in (0, 1, 6, 2**31, 2**32 - 1)
    ]
    keys = {jax.random.key_data(sampler.row_keys(seed, 1)).tobytes() for seed in seeds}
    assert len(keys) == len(seeds) == 15
    options = dict(temperature=3.0, guidance=0.0)  # or a tiny model samples the same tokens
    tokens = [
        model.sample(PROMPTS, seed=seed, **options).tokens.tobytes()
        for seed in (6, 2**32 + 6, 2**63 + 6, 2**64 - 1)
    ]
    assert len(set(tokens)) == 4


@pytest.mark.parametrize(("seed", "nearest"), [(-1, 0), (2**64, 2**64 - 1)])
def test_other_seeds_are_refused(model, seed, nearest):
    line = rf"seed={seed} must lie in \[0, 2\*\*64 - 1\]; nearest is {nearest}\."
    with pytest.raises(UserError, match=line):
        model.generate(PROMPTS, seed=seed)
    with pytest.raises(UserError, match=line):
        model.story([Scene(PROMPTS[0], 1.4)], seed=seed)


def test_windows_of_the_largest_seed_have_seeds_of_their_own():
    found = [seeds.stream(2**64 - 1, number) for number in range(100)]
    assert len(set(found)) == 100
    assert all(0 <= seed < 2**64 for seed in found)


@pytest.mark.parametrize(("frames", "nearest"), [(10, 9), (0, 1), (13, 11)])
def test_frames_come_by_whole_patches(model, frames, nearest):
    end = "; extend and story make longer videos" if frames > nearest == 11 else ""
    line = rf"frames={frames} must be .* nearest is {nearest}{end}\."
    with pytest.raises(UserError, match=line):
        model.generate(PROMPTS, seed=0, frames=frames)


def test_a_sample_does_not_depend_on_its_batch(model):
    together = model.sample(PROMPTS, seed=3)
    alone = model.sample(PROMPTS[:1], seed=3)
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[0])
    np.testing.assert_allclose(alone.video[0], together.video[0], atol=1e-5)


def test_a_call_changes_nothing_in_the_model(model):
    before = dict(vars(model))
    model.sample(PROMPTS, seed=3, trace=True)
    model.extend(GIVEN, PROMPTS, seed=0)
    assert all(vars(model)[name] is value for name, value in before.items())
    assert vars(model).keys() - before.keys() <= {"vocabulary"}


def test_a_given_image_is_the_first_frame(model):
    video = model.animate(GIVEN[:, 0], PROMPTS, seed=0)
    assert video.shape == GIVEN.shape
    np.testing.assert_array_equal(video[:, 0], GIVEN[:, 0])
    sample = model.sample(PROMPTS, seed=0, video=GIVEN[:, :1])
    np.testing.assert_array_equal(sample.video, video)
    np.testing.assert_array_equal(sample.tokens[:, :1], model.encode(GIVEN[:, :1]))
    assert np.any(video[:, 1:] != model.animate(GIVEN[:, 1], PROMPTS, seed=0)[:, 1:])


@pytest.mark.parametrize(("frames", "context"), [(11, 5), (8, 5), (4, 3), (2, 1), (1, 1)])
def test_a_video_is_kept_and_goes_on(model, frames, context):
    given = GIVEN[:, :frames]
    video = model.extend(given, PROMPTS, seed=0)
    assert video.shape[1] == frames + 11 - context
    np.testing.assert_array_equal(video[:, :frames], given)
    sample = model.sample(PROMPTS, seed=0, video=given[:, -context:])
    np.testing.assert_array_equal(sample.video[:, context:], video[:, frames:])
    known = model.encode(given[:, -context:])
    np.testing.assert_array_equal(sample.tokens[:, : known.shape[1]], known)
    other = given.copy()
    other[:, : frames - context] = 0
    again = model.extend(other, PROMPTS, seed=0)  # what lies further back is forgotten
    np.testing.assert_array_equal(video[:, frames:], again[:, frames:])


def test_a_call_may_have_its_own_context(model):
    given = GIVEN[:, :7]
    video = model.extend(given, PROMPTS, seed=0, context=3)
    assert video.shape[1] == 7 + 11 - 3
    sample = model.sample(PROMPTS, seed=0, video=given[:, -3:])
    np.testing.assert_array_equal(sample.video[:, 3:], video[:, 7:])
    with pytest.raises(UserError, match="context=9: there are 7 frames only"):
        model.extend(given, PROMPTS, seed=0, context=9)


def test_given_frames_must_have_the_models_size(model):
    with pytest.raises(UserError, match=r"\(2, 1, 8, 16, 3\); they must be \[b f 16 16 3\]"):
        model.animate(GIVEN[:, 0, :8], PROMPTS, seed=0)


# --- stories


def test_a_story_is_windows_that_share_five_frames(model):
    scenes = [Scene(PROMPTS[0], 2.0), Scene("then " + PROMPTS[1], 0.7)]
    video, parts = model.story(scenes, seed=5)
    assert video.shape == (11 + 6 * 2, 16, 16, 3)
    assert parts == [(0, 17), (17, 23)]
    expected = model.generate(PROMPTS[:1], seed=5)
    for number, scene in ((1, scenes[0]), (2, scenes[1])):
        expected = model.extend(expected, [scene.prompt], seed=5 + 1_000_003 * number)
    np.testing.assert_array_equal(video, expected[0])


def test_a_story_may_have_its_own_context(model):
    scenes = [Scene(PROMPTS[0], 1.4), Scene(PROMPTS[1], 1.0)]
    video, parts = model.story(scenes, seed=5, context=3)
    assert parts == [(0, 11), (11, 19)]
    first = model.generate(PROMPTS[:1], seed=5)
    expected = model.extend(first, PROMPTS[1:], seed=5 + 1_000_003, context=3)
    np.testing.assert_array_equal(video, expected[0])


def test_what_follows_a_hard_cut_does_not_depend_on_what_was_before(model):
    after = [Scene(PROMPTS[1], 1.4, cut=True), Scene(PROMPTS[0], 0.75)]
    alone, _ = model.story(after, seed=5)
    for seconds in (1.4, 2.9):
        video, parts = model.story([Scene(PROMPTS[0], seconds), *after], seed=5)
        np.testing.assert_array_equal(video[parts[1][0] :], alone)


def test_stories_sampled_together_are_stories(model):
    stories = [[Scene(PROMPTS[0], 1.4), Scene(PROMPTS[row], 0.7)] for row in range(2)]
    parts = list(model.story_windows(stories, seed=5))
    assert [part.shape[:2] for part in parts] == [(2, 11), (2, 6)]
    longer = [stories[0], [*stories[1], Scene(PROMPTS[0], 0.7)]]
    with pytest.raises(UserError, match="same lengths"):
        next(model.story_windows(longer, seed=0))


@pytest.mark.parametrize("count", [1, 2, 7, 160])
def test_a_story_of_n_windows_has_11_plus_6_more_each(count):
    parts = windows([Scene("", (11 + 6 * (count - 1)) / 8)], PAPER, 5)
    assert len(parts) == count
    assert parts[-1].stop == 11 + 6 * (count - 1)
    assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]


def test_a_new_prompt_starts_with_a_window():
    scenes = [Scene("a", 0.1), Scene("b", 1.5), Scene("c", 0.7)]
    parts = windows(scenes, PAPER, 5)
    assert parts == [
        Window(0, 0, 11, True),
        Window(1, 11, 17),
        Window(1, 17, 23),
        Window(2, 23, 29),
    ]
    assert segments(parts) == [(0, 11), (11, 23), (23, 29)]


def test_scenes_last_to_the_nearest_window():
    parts = windows([Scene(str(i), 15.0) for i in range(8)], PAPER, 5)
    assert parts[-1].stop == 11 + 6 * 158 == 2 * 60 * PAPER.fps - 1
    assert all(abs(stop - start - 15 * PAPER.fps) <= 3 for start, stop in segments(parts))


@pytest.mark.parametrize(
    ("scenes", "context", "message"),
    [
        ([], 5, "at least one scene"),
        ([Scene("a", 1.0), Scene("b", 0.0)], 5, "scene 2: 0.0 seconds must be above 0"),
        ([Scene("a", 1.0)], 4, r"config\.sample\.context=4 .* nearest is 3"),
        ([Scene("a", 1.0)], 11, r"config\.sample\.context=11 .* nearest is 9"),
        ([Scene("a", 1.0)], 0, r"config\.sample\.context=0 .* nearest is 1"),
    ],
)
def test_an_impossible_story_is_refused(scenes, context, message):
    with pytest.raises(UserError, match=message):
        windows(scenes, PAPER, context)


# --- saving and loading


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_a_bundle_holds_the_whole_model(model, tmp_path):
    model.save(tmp_path, trained="by a test")
    loaded = Phenaki.load(tmp_path)
    equal(loaded.params, model.params)
    assert loaded.config.to_json() == Phenaki.load(tmp_path).config.to_json()
    assert json.loads((tmp_path / "bundle.json").read_text())["trained"] == "by a test"
    assert (loaded.spec, loaded.fingerprint) == (model.spec, model.fingerprint)
    np.testing.assert_array_equal(loaded.generate(PROMPTS, seed=0), model.generate(PROMPTS, seed=0))


def test_a_bundle_may_be_of_half_precision(model, tmp_path):
    model.save(tmp_path, jnp.bfloat16)
    with ocp.PyTreeCheckpointer() as checkpointer:
        stored = checkpointer.metadata(tmp_path / "params").item_metadata.tree
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype(jnp.bfloat16)}
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), model.params)
    equal(Phenaki.load(tmp_path).params, half)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A workdir as training leaves it."""
    workdir = tmp_path_factory.mktemp("run")
    config, params = tiny.whole_config(), model.params
    config.fingerprint = checkpoint.fingerprint(params["tokenizer"], config.to_dict())
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    current = state.create(params["maskgit"], optax.sgd(1.0))
    saved = checkpoint_manager.Checkpoints(workdir)
    saved.save(1, current.replace(ema=jax.tree.map(jnp.zeros_like, current.ema)), {"taken": 1})
    saved.save(2, current, {"taken": 2})
    saved.close()
    facts = dict(kind="tokenizer", fingerprint=config.fingerprint)
    only = {"tokenizer": params["tokenizer"]}
    checkpoint.save_bundle(workdir / "tokenizer", only, tiny.tokenizer_config().to_dict(), **facts)
    return workdir


def test_a_run_gives_its_newest_average(run, model):
    equal(Phenaki.load(run).params, model.params)


def test_a_run_and_a_bundle_may_be_named_from_where_one_stands(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parent)
    equal(Phenaki.load(run.name).params["maskgit"], model.params["maskgit"])
    monkeypatch.chdir(tmp_path)
    model.save("saved")
    equal(Phenaki.load("saved").params, model.params)


def test_another_tokenizer_than_the_trained_one_is_refused(run, model, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    other = jax.tree.map(jnp.copy, model.params["tokenizer"])
    other["quantizer"]["embedding"] += 1e-3
    checkpoint.save_bundle(
        tmp_path / "run" / "tokenizer",
        {"tokenizer": other},
        tiny.tokenizer_config().to_dict(),
        kind="tokenizer",
    )
    with pytest.raises(
        UserError, match=r"was trained on the tokens of tokenizer \w{16}, but .* is \w{16}"
    ):
        Phenaki.load(tmp_path / "run")


def test_a_fingerprint_is_of_what_makes_the_codes(run, model, tmp_path):
    params, config, digest = checkpoint.load_tokenizer(run / "tokenizer")
    model.save(tmp_path)
    assert checkpoint.load_tokenizer(tmp_path)[2] == digest  # also within a whole model
    config.optim.rate = 1.0
    assert checkpoint.fingerprint(params, config.to_dict()) == digest
    config.video.fps = 1.0
    assert checkpoint.fingerprint(params, config.to_dict()) != digest


def test_what_is_not_a_model_is_said_to_be(run, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer: holds a tokenizer, not a whole model"):
        Phenaki.load(run / "tokenizer")
    with pytest.raises(UserError, match=r"is a MaskGIT run; its tokenizer is"):
        checkpoint.load_tokenizer(run)
    with pytest.raises(UserError, match=r"nowhere: no such directory"):
        Phenaki.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run \(it has no config\.json\)"):
        Phenaki.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny.tokenizer_config().to_dict()))
    with pytest.raises(UserError, match=r"has no checkpoint yet"):
        Phenaki.load(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(UserError, match=r"has schema 99, of a newer version of phenaki"):
        Phenaki.load(tmp_path)
