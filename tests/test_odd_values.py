"""Values, files and texts that nobody means: one line each, before anything is sampled or lost."""

import copy
import dataclasses
import importlib
import json
import os
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jaxtyping import TypeCheckError

from configs import critic, cvivit, maskgit
from phenaki.data import batches
from phenaki.data.shapes.world import World
from phenaki.errors import UserError, one_of
from phenaki.io import (
    apart,
    artifacts,
    checkpoint,
    checkpoint_steps,
    media,
    paths,
    sample_files,
    shipped,
)
from phenaki.models import factory
from phenaki.sampling import orders, seeds
from phenaki.sampling.windows import Scene
from phenaki.schema.check import check, check_whole
from phenaki.schema.config import WORLD
from phenaki.stories import rerolls, storyboard
from phenaki.train import logs, own_sampler, tokenizer, workdir
from phenaki.train import maskgit as stage2
from phenaki.types import VideoSpec

SPEC = VideoSpec(frames=11, height=16, width=16, fps=8.0, patch=(2, 8, 8))
DEEP = "[" * 100_000
# The suite checks annotations, which users' calls do not: either refuses.
REFUSED = (UserError, TypeCheckError)


@pytest.fixture(scope="module")
def model():
    return tiny.phenaki()


CLIPS = {
    "smaller": np.zeros((1, 11, 8, 8, 3)),
    "larger": np.zeros((1, 11, 32, 32, 3)),
    "ten frames": np.zeros((1, 10, 16, 16, 3)),
    "too many frames": np.zeros((1, 13, 16, 16, 3)),
    "no frames": np.zeros((1, 0, 16, 16, 3)),
    "no clips": np.zeros((0, 11, 16, 16, 3)),
    "masked": np.ma.masked_less(np.zeros((1, 11, 16, 16, 3)), 1),
    "with alpha": np.zeros((1, 11, 16, 16, 4)),
    "channels first": np.zeros((1, 11, 3, 16, 16)),
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("call", ["encode", "reconstruct"])
def test_clips_of_another_size_are_refused(model, call, name):
    with pytest.raises(UserError):
        getattr(model, call)(CLIPS[name].astype(np.float32))


@pytest.mark.parametrize("first_row", [-1, 1.5, "1", True])
def test_the_number_of_a_row_is_a_whole_one(model, first_row):
    with pytest.raises(REFUSED, match="first_row"):
        model.sample(["a"], seed=0, steps=1, first_row=first_row)


@pytest.mark.parametrize("frames", [5.0, "5", True])
def test_frames_are_a_whole_number(model, frames):
    with pytest.raises(REFUSED, match="frames"):
        model.generate(["a"], seed=0, steps=1, frames=frames)


@pytest.mark.parametrize("seconds", [None, "1.4", True, 10**400])
def test_seconds_of_a_scene_are_a_number(model, seconds):
    with pytest.raises(REFUSED, match="scene 1|seconds"):
        model.story([Scene("a", seconds)], seed=0, steps=1)


def test_one_scene_is_no_list_of_scenes(model):
    with pytest.raises(REFUSED, match="must be a list|scenes"):
        model.story(Scene("a", 1.0), seed=0, steps=1)


@pytest.mark.parametrize("context", ["5", 5.0, True])
def test_the_context_is_a_whole_number(model, context):
    with pytest.raises(REFUSED, match="context"):
        model.story([Scene("a", 1.0)], seed=0, steps=1, context=context)


@pytest.mark.parametrize(
    "options",
    [
        {"negative": 3}, {"preset": ["a"]}, {"critic": "runs/critic"}, {"student": "runs/student"},
        {"prompts": 3}, {"prompts": None}, {"seed": jnp.int32(-1)}, {"seed": jnp.ones(2, int)},
        {"seed": jax.random.key(0)}, {"trace": "yes"}, {"trace": np.array([1, 2])},
        {"continues": True}, {"defaults": {}}, {"stepz": 3},
    ],
)  # fmt: skip
def test_options_of_another_kind_are_refused(model, options):
    with pytest.raises(REFUSED):
        model.generate(**{"prompts": ["a"], "seed": 0, "steps": 1} | options)


@pytest.mark.parametrize("seed", [jnp.int32(7), jnp.uint32(7)])
def test_a_seed_on_a_device_is_that_number(seed):
    own, python = (jax.random.key_data(seeds.root_key(one)) for one in (seed, 7))
    np.testing.assert_array_equal(own, python)
    traced = jax.jit(lambda one: jax.random.key_data(seeds.root_key(one)))(seed)
    np.testing.assert_array_equal(traced, python)


def test_what_lies_in_a_released_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("laptop/params", "checkpoints/laptop/params"):
        assert shipped.find(name, shipped.MODELS) == shipped.folder("checkpoints") / "laptop/params"
    for name in ("laptop/../laptop", "laptop/nothing", "nothing/params", "", "/", "."):
        assert shipped.find(name, shipped.MODELS) == paths.path(name)
    assert shipped.find("city/params", shipped.STORIES) == Path("city/params")


@pytest.mark.parametrize("calibrated", [(1, 1), (-1,), (24,), (0, 3, 99)])
def test_a_calibrated_order_has_different_positions_of_the_clip(calibrated):
    with pytest.raises(UserError, match="different positions"):
        orders.ranks(orders.CALIBRATED, (6, 2, 2), calibrated)


@pytest.mark.parametrize("prompts", ["abc", [3], []])
def test_what_is_embedded_is_a_list_of_texts(model, prompts):
    with pytest.raises(REFUSED, match="prompts"):
        model.embed(prompts)


def test_a_world_has_something_to_train_on():
    alone = World(colours=("red",), shapes=("circle",), directions=("up",))
    with pytest.raises(UserError, match="held_out=6 leaves no combination .* nearest is 0"):
        _ = alone.combinations
    assert len(dataclasses.replace(alone, held_out=0).combinations[0]) == 1


def test_a_table_has_no_key_that_is_a_list():
    with pytest.raises(REFUSED, match="must be one of a"):
        one_of("x", ["a"], {"a": 1})


# Stories.

SCENE = "  - {prompt: a, seconds: 1"


def read(tmp_path, text):
    (tmp_path / "story.yaml").write_text(text)
    return storyboard.read(tmp_path / "story.yaml", SPEC, context=5, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"scenes:\n{SCENE}}}\nscenes:\n{SCENE}}}\n", "scenes was already given"),
        ("scenes:\n  - {prompt: 2022-99-99, seconds: 1}\n", ":2: prompt: 2022-99-99 is no value"),
        (f"scenes:\n{SCENE}, seed: 0x_}}\n", ":2: seed: 0x_ is no value"),
        (f"scenes:\n{SCENE}, seed: {'9' * 5000}}}\n", ":2: seed"),
        ('scenes:\n  - {prompt: "\\UFFFFFFFF", seconds: 1}\n', "is not YAML"),
        ("scenes:\n  - {prompt: a, seconds: !!bool x}\n", ":2: seconds"),
        ("scenes: " + "[" * 3000, "nested too deeply"),
        (f"scenes:\n{SCENE}, negative: [b, c]}}\n", ":2: negative"),
    ],
)
def test_what_yaml_itself_cannot_convert_has_its_line(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value) and "story.yaml" in str(error.value)


# Files.


def test_json_that_is_nested_too_deeply_is_damaged(tmp_path):
    file = tmp_path / "deep.json"
    file.write_text(DEEP)
    with pytest.raises(UserError, match="damaged"):
        artifacts.read_dict(file)
    assert artifacts.marked(file) is None
    with pytest.raises(UserError):
        rerolls.read(file)
    file.write_text(f'{{"step": 1}}\n{DEEP}\n')
    assert [line["step"] for line in logs._lines(file).values()] == [1]


def test_a_log_that_is_a_link_stays_one(tmp_path):
    (tmp_path / "far.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "far.jsonl")
    logs._open_after(tmp_path / "metrics.jsonl", 1).close()
    assert (tmp_path / "metrics.jsonl").is_symlink()
    assert (tmp_path / "far.jsonl").read_text() == '{"step": 1}\n'


def test_a_pipe_is_no_input(tmp_path):
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(UserError, match="image.png: is a pipe"):
        apart.check_apart("output", tmp_path / "out", [("image", str(tmp_path / "image.png"))])


def test_folders_with_other_digits_are_no_steps(tmp_path):
    for name in ("7", "\u00b2", "\u0663"):
        (tmp_path / name).mkdir()
    assert checkpoint_steps.complete_steps(tmp_path) == [7]


@pytest.mark.parametrize(
    ("fps", "kept", "slower"), [(8, 12, 8), (50, 12, 50), (60, 6, 30), (240, 3, 48)]
)
def test_gifs_of_fast_clips_have_fewer_frames(tmp_path, fps, kept, slower):
    video = np.zeros((12, 16, 16, 3), np.uint8)
    frames, rate = media.gif_frames(video, fps)
    assert (len(frames), rate) == (kept, slower)
    names = sample_files.write(tmp_path, video[None], ["a"], fps)
    assert (tmp_path / f"{names[0]}.gif").is_file() and (tmp_path / f"{names[0]}.mp4").is_file()


def test_threads_that_load_tensorflow_at_once_leave_no_trace(monkeypatch):
    name, raised = "TF_USE_LEGACY_KERAS", []
    monkeypatch.delenv(name, raising=False)
    ready = threading.Barrier(8)
    monkeypatch.setattr(importlib, "import_module", lambda _: os.environ[name])

    def run():
        ready.wait()
        try:
            for _ in range(200):
                paths.load.__wrapped__()
        except KeyError as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not raised and name not in os.environ


def test_a_bundle_that_lacks_a_section_is_damaged(model, tmp_path):
    from phenaki.pipeline import Phenaki

    model.save(tmp_path / "model")
    facts = json.loads((tmp_path / "model/bundle.json").read_text())
    del facts["sums"], facts["config"]["sample"]
    (tmp_path / "model/bundle.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="damaged"):
        Phenaki.load(tmp_path / "model")


WORLDS = {
    "nothing to draw": ({"shapes": ()}, "must be 1 or more values"),
    "no size": ({"sizes": []}, "must be 1 or more values"),
    "no colour": ({"colours": ()}, "must be 1 or more values"),
    "a colour of images that there is not": ({"still_colours": ("bogus",)}, "did you mean|must be"),
    "every combination held out": ({"held_out": 1}, "must be 0, or at least 2"),
    "a size that video has": ({"size": 8}, "size: no such field"),
    "a misspelt field": ({"spede": 1.0}, "spede: no such field; did you mean speed"),
    "pairs of one colour": ({"pair": 0.5, "colours": ("red",)}, "must be two or more with"),
    "pairs that cannot face": ({"pair": 0.5, "directions": ("up", "left")}, "must have 'down'"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_that_cannot_be_drawn_are_refused(name):
    fields, message = WORLDS[name]
    config = tiny.tokenizer_config()
    config.data.world = dict(config.data.world, **fields)
    with pytest.raises(UserError, match=rf"config\.data\.world.*({message})"):
        factory.tokenizer(config)
        batches.world(config)


@pytest.mark.parametrize("spike", [0.5, 1, -3, "ten"])
def test_a_spike_is_more_than_the_mean(spike):
    with pytest.raises(UserError, match="config.guard.spike=.* must be"):
        check({"guard": {"spike": spike}})
    check({"guard": {"spike": 0}})
    check({"guard": {"spike": 1.5}})


@pytest.mark.parametrize("quantizer", ["fsq", "lfq"])
def test_what_learns_no_codebook_averages_none(quantizer):
    config = tiny.tokenizer_config()
    config.tokenizer.quantizer = quantizer
    config.codebook.decay = 0.9
    with pytest.raises(UserError, match=f"config.codebook.decay=0.9: {quantizer} has no codebook"):
        tokenizer.make_stage(config)


@pytest.mark.parametrize("variant", ["demo", "laptop", "shapes64"])
def test_every_field_of_a_world_can_be_set_by_a_flag(variant):
    for presets in (cvivit, maskgit):
        world = presets.get_config(variant).data.world
        assert set(world) == set(WORLD)


def test_what_a_preset_adds_to_a_world_is_the_default():
    added = cvivit.world(radius=5.0, then=0.0) | {"sizes": World().sizes}
    assert World(**added) == World()


@pytest.mark.parametrize(("frames", "nearest"), [(11.5, 11), (5.0, 5), (4.4, 3), (99.9, 11)])
def test_the_nearest_number_of_frames_is_a_good_one(frames, nearest):
    line = f"frames={frames} must be 1 .* nearest is {nearest}|Expected type: int"
    with pytest.raises(REFUSED, match=line):
        SPEC.grid(frames)
    SPEC.grid(nearest)


@pytest.mark.parametrize("dtype", [np.int8, "int32", "float17", None.__class__, bool])
def test_parameters_are_stored_as_floats(model, tmp_path, dtype):
    with pytest.raises(UserError, match="dtype=.* must be of floating point"):
        model.save(tmp_path / "model", dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "calibrated"}, "this model has none in config.sample.calibrated"),
        ({"order": "calibrated", "calibrated": (0, 99)}, "must be different positions"),
        ({"continued": {"order": "calibrated"}}, "this model has none in config.sample.calibrated"),
        ({"guidance": 1.0, "guidance_interval": (0.01, 0.02)}, "holds none of its 3 steps"),
    ],
)
def test_samplers_that_cannot_draw_are_refused_before_training(model, fields, message):
    broken, own = copy.copy(model), model.defaults
    for changed in (
        dataclasses.replace(own, sample={**own.sample, **fields}),
        dataclasses.replace(own, presets={**own.presets, "mine": fields}),
    ):
        broken.settings = dataclasses.replace(model.settings, defaults=changed)
        with pytest.raises(UserError, match=message):
            own_sampler.check(broken)
    own_sampler.check(model)
    broken.settings = dataclasses.replace(model.settings, context=4)
    with pytest.raises(UserError, match="config.sample.context=4 must be .* nearest is 3"):
        own_sampler.check(broken)


@pytest.mark.parametrize("fields", [{"optim": {"accumulate": 3}}, {"mesh": {"data": 16}}])
def test_a_refused_first_start_leaves_no_run(model, tmp_path, fields):
    stage1 = tiny.tokenizer_config()
    tokenizers = {"tokenizer": model.params["tokenizer"]}
    checkpoint.save_bundle(tmp_path / "stage1", tokenizers, stage1.to_dict(), kind="tokenizer")
    with pytest.raises(UserError, match="must"):
        stage2.train(tiny.maskgit_config(**fields), tmp_path / "stage1", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fields_of_a_world_that_a_run_lacks_had_their_defaults():
    world = {"radius": 2.0}
    before = {"data": {"world": world}}
    lines = workdir.changes(before, {"data": {"world": world | {"pair": 0.5, "speed": 1.0}}})
    assert lines == ["config.data.world.pair is 0.5, no longer 0.0"]


def test_orders_of_a_sampler_without_one_are_not_fixed():
    with pytest.raises(UserError, match="config.mask.ordered: .* must be fixed"):
        orders.of_sampler({"steps": 4}, (6, 2, 2))


@pytest.mark.parametrize(
    ("kind", "path"),
    [("critic", "loss"), ("critic", "sample"), ("maskgit", "gan"), ("tokenizer", "model")],
)
def test_a_config_has_no_sections_of_another_kind(kind, path):
    configs = {"tokenizer": tiny.tokenizer_config, "maskgit": tiny.maskgit_config}
    fields = (configs[kind]() if kind in configs else critic.get_config("demo")).to_dict()
    check_whole(kind, fields)
    wrong = {"loss": {"beta": 1.0}, "sample": {"steps": 3}, "gan": {"width": 8},
             "model": {"depth": 2}}[path]  # fmt: skip
    with pytest.raises(UserError, match=rf"config\.{path}\.\w+: no such field"):
        check_whole(kind, fields | {path: wrong})
    check_whole(kind, fields | {path: wrong, "fingerprint": "0"})  # as a run stores it


@pytest.mark.parametrize("given", [[], [[1.0], [2.0, 3.0]], np.float32(0.5), [0.5, 0.5]])
@pytest.mark.parametrize("method", ["animate", "extend", "follow"])
def test_frames_of_another_form_are_refused_by_it(model, method, given):
    with pytest.raises(REFUSED, match=r"they must be \[b |given frames are no array|annotation"):
        getattr(model, method)(given, ["a"], seed=0)


@pytest.mark.parametrize("prompts", [{"a", "b"}, {"a": 1}, np.array("a"), frozenset("a")])
def test_prompts_without_an_order_are_no_list(model, prompts):
    """Which prompt a set begins with differs from process to process."""
    with pytest.raises(REFUSED, match="must be a list of texts, one a sample|annotation"):
        model.generate(prompts, seed=0)


def test_a_story_of_none_is_refused(model):
    with pytest.raises(UserError, match="stories: there is none"):
        next(model.story_windows([], seed=0))


@pytest.mark.parametrize(
    "option", [{"video": CLIPS["ten frames"]}, {"known": True}, {"approximate": True}]
)
@pytest.mark.parametrize("method", ["generate", "animate", "extend", "follow", "story"])
def test_a_task_takes_no_part_of_another_one(model, method, option):
    """`generate` once took a video, and made nothing of it."""
    frames = np.zeros((1, 3, 16, 16, 3), np.float32)
    given = {
        "generate": (["a"],), "animate": (frames[:, 0], ["a"]), "extend": (frames, ["a"]),
        "follow": (frames, ["a"]), "story": ([Scene("a", 1.0)],),
    }[method]  # fmt: skip
    with pytest.raises(UserError, match=rf"^{min(option)}=: Phenaki\.{method} takes none"):
        getattr(model, method)(*given, seed=0, **option)


def test_given_values_that_rounding_took_out_of_the_range_are_within_it(model):
    frames = np.full((1, 3, 16, 16, 3), 1.0005, np.float32)
    frames[:, :, 0] = -0.0005
    video = model.extend(frames, ["a"], seed=0, steps=1)
    assert (video.min(), video.max()) == (0, 1)


@pytest.mark.parametrize("progress", [5, "yes", [print]])
def test_a_progress_that_is_no_function_is_refused(model, progress):
    with pytest.raises(REFUSED, match="must be True, False or a function|annotation"):
        model.generate(["a"], seed=0, steps=1, progress=progress)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"note": object()}, "note=.* must be a value of JSON"),
        ({"schema": 1}, "schema=: bundle.json has a schema of its own"),
        ({"sums": {}}, "sums=: bundle.json has a sums of its own"),
    ],
)
def test_facts_that_cannot_be_written_cost_no_bundle(model, tmp_path, facts, line):
    model.save(tmp_path / "bundle", note="first")
    with pytest.raises(UserError, match=line):
        model.save(tmp_path / "bundle", **facts)
    assert json.loads((tmp_path / "bundle/bundle.json").read_text())["note"] == "first"


def test_a_context_of_a_call_is_named_as_it_was_given(model):
    with pytest.raises(UserError, match="^context=4 must be 1"):
        model.story([Scene("a", 1.0)], seed=0, context=4)
