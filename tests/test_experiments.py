"""The programs that measure guidance and Table 2, at their smallest; and what they train on."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import script_calls
import tiny
from ml_collections import ConfigDict
from PIL import Image

from configs import maskgit
from experiments import common
from phenaki.data import batches
from phenaki.data.shapes import attributes
from phenaki.data.shapes import render as moving_shapes
from phenaki.data.shapes import world as shapes_world
from phenaki.data.shapes.world import World
from phenaki.errors import UserError
from phenaki.evaluation import alignment
from phenaki.io import checkpoint
from phenaki.pipeline import Phenaki

PURPLE = "purple"


@pytest.mark.parametrize(
    ("variant", "shares", "sizes"),
    [
        ("t2v", "100/0", (512, 0)),
        ("t2v", "80/20", (416, 96)),
        ("t2v", "50/50", (256, 256)),
        ("t2v", "80/10/10", (416, 96)),
        ("mini", "80/20", (26, 6)),
        ("mini", "50/50", (16, 16)),
    ],
)
def test_a_mixture_shares_the_samples_of_a_step(variant, shares, sizes):
    data = maskgit.get_config(f"{variant},mix={shares}").data
    assert (data.batch, data.image_batch) == sizes
    if variant == "t2v":
        assert all(size % 32 == 0 for size in sizes)


def test_the_papers_own_mixture_is_80_20():
    assert maskgit.get_config("t2v,mix=80/20").data == maskgit.get_config("t2v").data


@pytest.mark.parametrize("shares", ["80/30", "80", "a/b", "-10/110", "80/20.0"])
def test_shares_add_up_to_the_whole(shares):
    with pytest.raises(UserError, match=rf"mix={shares}: must be the percentages of"):
        maskgit.get_config(f"mini,mix={shares}")


@pytest.mark.parametrize("shares", ["100/0", "80/20", "50/50"])
def test_equal_clips_are_more_steps(shares):
    config = maskgit.get_config(f"mini,mix={shares}")
    steps = common.steps_for_clips(config, 1000)
    total = maskgit.get_config("mini").data.batch
    assert abs(steps * config.data.batch - 1000 * total) <= config.data.batch / 2


def captions(world, render=moving_shapes.render, count=1500):
    made = render(world, "train", np.arange(count))
    colours = np.array(shapes_world.palette(world))[made["clips"].colour[:, 0]]
    names = "|".join(shapes_world.palette(world))
    return colours, np.array([bool(re.search(rf"\b({names})\b", c)) for c in made["caption"]])


def test_design_1_shows_purple_in_stills_alone():
    world = World(size=24, radius=4.0, sizes=("large",), still_colours=(PURPLE,))
    colours, named = captions(world)
    assert PURPLE not in colours
    assert named.all()
    colours, named = captions(world, moving_shapes.render_images)
    assert 0.2 < (colours == PURPLE).mean() < 0.3
    assert named.all()


def test_design_2_shows_purple_in_videos_and_names_it_in_stills_alone():
    world = World(
        size=24, radius=4.0, sizes=("large",), colours=(*World.colours, PURPLE),
        unnamed=(PURPLE,), nameless=0.6,
    )  # fmt: skip
    colours, named = captions(world)
    purple = colours == PURPLE
    assert 0.1 < purple.mean() < 0.19
    assert not named[purple].any()
    assert abs(named[~purple].mean() - 0.4) < 0.05
    # Which colour a caption without one has: what clips alone get right by chance.
    assert abs(purple[~named].mean() - 1 / 7 / (1 / 7 + 6 / 7 * 0.6)) < 0.05
    colours, named = captions(world, moving_shapes.render_images)
    assert 0.1 < (colours == PURPLE).mean() < 0.19
    assert named.all()


def test_names_left_out_change_no_pixel():
    plain = World(size=24, radius=4.0, then=0.4, pair=0.3)
    silent = World(size=24, radius=4.0, then=0.4, pair=0.3, unnamed=("red",), nameless=0.5)
    one, other = (moving_shapes.render(w, "train", np.arange(50)) for w in (plain, silent))
    np.testing.assert_array_equal(one["video"], other["video"])
    assert "red" not in " ".join(other["caption"]).split()
    with pytest.raises(UserError, match=r"config\.data\.world\.unnamed='puce' must be one of red"):
        World(unnamed=("puce",))


def test_groups_of_prompts_are_sampled_as_one(monkeypatch):
    monkeypatch.setattr(alignment, "GROUP", 2)

    class Model(Phenaki):
        def __init__(self):
            pass

        def generate(self, prompts, *, seed, first_row):
            assert len(prompts) == 2  # one size, so that it compiles once
            videos = np.zeros((2, 1, 1, 1, 3), np.float32)
            videos[:, 0, 0, 0] = [(len(p), seed, first_row + row) for row, p in enumerate(prompts)]
            return videos

    videos = alignment.sample(Model(), ["a", "bb", "ccc"], seed=5)
    assert videos[:, 0, 0, 0].tolist() == [[1, 5, 0], [2, 5, 1], [3, 5, 2]]


def test_the_pages_python_runs_on_a_small_model(monkeypatch, tmp_path, capsys):
    page = Path(__file__).parents[1] / "docs/sampling.md"
    block, _ = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)  # then a student's
    tiny.phenaki().save(tmp_path / "checkpoints/laptop")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, page.name, "exec"), {})
    assert capsys.readouterr().out.endswith("\n(12, 1, 24) (12, 1, 24)\n")


def test_the_front_has_the_best_at_every_cost_that_beats_what_costs_less():
    with script_calls.loaded("experiments/compare_samplers.py") as (module, _):
        points = [(4, 80.0), (3, 82.0), (3, 94.0), (48, 97.0), (4, 98.0), (5, 98.0)]
        assert module.pareto(points) == [(3, 94.0), (4, 98.0)]


# --- the programs


def test_guidance_is_measured_once_and_drawn(run_script, tmp_path):
    tiny.phenaki().save(tmp_path / "model")
    flags = [
        f"--model={tmp_path}/model", f"--output={tmp_path}/out", "--count=3", "--guidance=0,6",
        "--steps=2", "--temperature=1", "--limit=2",
    ]  # fmt: skip
    done = run_script("experiments/sweep_guidance.py", *flags, quick=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/guidance.json").read_text())
    assert {axis: [*points] for axis, points in report["axes"].items()} == {
        "guidance": ["0.0", "6.0"], "steps": ["2"], "choice_temperature": ["1.0"],
        "bounded": ["0.0", "6.0"],
    }  # fmt: skip
    own = report["settings"]["sampler"]  # the paper's sampler, whatever the model's own is
    assert (own["steps"], own["guidance"], own["schedule"]) == (40, 0.5, "cosine")
    assert (tmp_path / "out/guidance.png").stat().st_size > 5000
    assert "| λ 6.0 | " in (tmp_path / "out/guidance.md").read_text()
    report["axes"]["steps"]["2"]["seen"]["all"] = 0.77  # what is there is not measured again
    report["axes"]["bounded"]["6.0"]["seen"]["all"] = 0.66  # but that of another bound is
    report["limit"] = 1.0
    (tmp_path / "out/guidance.json").write_text(json.dumps(report))
    assert (
        "| steps 2 | "
        in (again := run_script("experiments/sweep_guidance.py", *flags, quick=True)).stdout
    )
    assert " 77 % |" in again.stdout and " 66 % |" not in again.stdout
    assert "| λ, bounded 6.0 | " in again.stdout


def test_what_a_negative_prompt_takes_out_is_counted_and_drawn(tmp_path, capsys, monkeypatch):
    """Half of the films show what their negative prompt names, a quarter nothing that moves."""
    tiny.phenaki().save(tmp_path / "model")
    asked, world = [], World(size=24, radius=4.0, then=0.0)
    clips = moving_shapes.render(world, "test", np.arange(4))
    where = attributes.sample(world, "test", np.arange(4))
    named = np.stack([where.colour[:, 0], where.shape[:, 0], where.direction[:, 0]], 1)

    def generate(self, prompts, *, seed, first_row, negative, **options):
        asked.append((prompts, negative, options))
        return films[first_row : first_row + len(prompts)]

    films = clips["video"].astype(np.float32) / 255
    films[1], films[3] = films[0], films[3, :1]  # another's film, and one that rests
    monkeypatch.setattr(alignment, "GROUP", 2)
    monkeypatch.setattr(Phenaki, "generate", generate)
    monkeypatch.setattr(common, "combinations", lambda *given: named)
    monkeypatch.setattr(batches, "world", lambda config: world)
    flags = [f"--model={tmp_path}/model", f"--output={tmp_path}/out", "--count=4", "--limit=2"]
    script_calls.call("experiments/sweep_negative.py", *flags, "--guidance=0.5,6")
    rows = json.loads((tmp_path / "out/negative.json").read_text())["rows"]
    assert {row: [*points] for row, points in rows.items()} == {
        "plain": ["0.5", "6.0"], "bounded": ["0.5", "6.0"],
    }  # fmt: skip
    same = named[1] == named[0]
    expected = dict(zip(("colour", "shape", "direction"), 3 + same.astype(int), strict=True))
    expected["direction"] -= 1  # who rests moves nowhere, also at a wall
    assert rows["plain"]["6.0"] == expected | {"clear": 3, "avoided": int(not same.any())}
    assert [options["guidance"] for *_, options in asked] == [0.5, 0.5, 6, 6] * 2
    assert [options.get("guidance_limit") for *_, options in asked] == [None] * 4 + [2] * 4
    assert asked[1][:2] == (["", ""], alignment.prompts_of(world, named[2:]).texts)
    assert "| λ, bounded 6 | " in capsys.readouterr().out
    assert (tmp_path / "out/negative.png").stat().st_size > 5000
    script_calls.call("experiments/sweep_negative.py", *flags, "--guidance=0.5,6,12")
    assert len(asked) == 8 + 4  # what is there is not sampled again
    script_calls.call("experiments/sweep_negative.py", *flags[:-1], "--limit=1", "--guidance=6,1")
    assert len(asked) == 8 + 4 + 2 + 4  # of another bound are all, and what a new λ adds
    rows = json.loads((tmp_path / "out/negative.json").read_text())["rows"]
    assert {row: [*points] for row, points in rows.items()} == {
        "plain": ["0.5", "1.0", "6.0", "12.0"], "bounded": ["1.0", "6.0"],
    }  # fmt: skip


def test_guidance_is_shown_on_prompts_of_any_model(run_script, tmp_path):
    model = tiny.phenaki()
    model.save(tmp_path / "model")
    bundle = json.loads((tmp_path / "model/bundle.json").read_text())
    bundle["config"]["data"] |= {"source": "tfds", "sources": "data/clips"}
    del bundle["sums"]
    (tmp_path / "model/bundle.json").write_text(json.dumps(bundle))
    flags = [f"--model={tmp_path}/model", f"--output={tmp_path}/out", "--guidance=0,3,6"]
    done = run_script("experiments/sweep_guidance.py", *flags, quick=True)
    assert done.returncode == 2 and "give --prompt for samples to look at" in done.stderr
    asked = ["--prompt=a", "--prompt=b"]
    done = run_script("experiments/sweep_guidance.py", *flags, *asked, quick=True)
    assert done.returncode == 0, done.stderr
    assert "a row per prompt, columns λ 0, 3, 6" in done.stdout
    spec = model.spec
    with av.open(str(tmp_path / "out/grid.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == spec.frames
        assert stream.width * 2 * spec.height == stream.height * 3 * spec.width
        facts = json.loads(container.metadata["comment"])
    assert (facts["guidance"], facts["prompts"]) == ([0, 3, 6], ["a", "b"])
    with Image.open(tmp_path / "out/grid.png") as sheet:
        assert sheet.height > 6 * 96


def test_the_interval_of_a_fraction_holds_it():
    assert common.wilson(95, 100) == pytest.approx((0.8882, 0.9785), abs=1e-4)
    for count in range(1, 400):  # error bars are drawn from the fraction to either end
        for right in (0, 1, count):
            low, high = common.wilson(right, count)
            assert 0 <= low <= right / count <= high <= 1


def test_samplers_are_compared_once_and_drawn(run_script, tmp_path):
    config = tiny.whole_config()
    config.data.world = ConfigDict({**config.data.world.to_dict(), "pair": 0.2})
    tiny.of_config(config).save(tmp_path / "model")
    checkpoint.update_sample(tmp_path / "model", {"calibrated": [5, 2]})
    (tmp_path / "settings.yaml").write_text(
        "few: {steps: 2, order: calibrated, schedule: late, continued: {steps: 1}}\n"
        "plain: {steps: 4}\nother: {steps: 9}\n"
    )
    flags = [
        f"--model={tmp_path}/model", f"--output={tmp_path}/out", "--count=4", "--seeds=0,1",
        f"--settings={tmp_path}/settings.yaml", "--only=few,plain",
    ]  # fmt: skip
    done = run_script("experiments/compare_samplers.py", *flags, quick=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/samplers.json").read_text())
    assert list(report["trials"]) == ["few", "plain"]
    few = report["trials"]["few"]["seeds"]["1"]
    assert (few["passes"], few["later_passes"], few["story"]["of"]) == (2, 1, 12)
    assert few["pair"]["of"] == 4 and "| pair, % |" in done.stdout
    assert {"start_px", "start_bits", "ground_bits", "frechet"} <= few.keys() & report[
        "truth"
    ].keys()
    assert (tmp_path / "out/samplers.png").stat().st_size > 5000
    for trial in report["trials"]["few"]["seeds"].values():
        trial["seen"]["right"] = 3  # what is there is not measured again
    plain = report["trials"]["plain"]
    plain["options"] = {"steps": 3}  # but that of other options is
    for trial in plain["seeds"].values():
        trial["passes"] = 3
    (tmp_path / "out/samplers.json").write_text(json.dumps(report))
    again = run_script("experiments/compare_samplers.py", *flags, quick=True)
    assert "| few | 2 (1) | 75.0 (40.9-92.9) | " in again.stdout, again.stderr
    assert "| plain | 4 (" in again.stdout


def test_long_stories_are_counted_window_by_window(run_script, tmp_path):
    tiny.phenaki().save(tmp_path / "model")
    flags = [f"--output={tmp_path}/out", "--windows=6", "--count=3", "--seeds=0,1"]
    models = f"--models={tmp_path}/model"
    done = run_script("experiments/long_stories.py", models, *flags, quick=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/stories.json").read_text())
    found = report["right"][f"{tmp_path}/model"]
    assert (report["stories"], report["windows"]) == (6, 6)
    assert [len(found[m]) for m in ("all", "identity")] == [6, 6]
    assert "| windows first, % | windows later, % | windows 2-3, % |" in done.stdout
    assert (tmp_path / "out/stories.png").stat().st_size > 5000
    world = dataclasses.replace(batches.world(tiny.phenaki().config), then=0.0, pair=0.0)
    combination = common.combinations(world, "test", 3)
    scenes = alignment.stories(tiny.phenaki(), world, combination, 0, scenes=6)
    whole = [
        alignment.verdict(world, scene.video, scene.prompts, scene.frames, scene.walls)
        for scene in scenes
    ]
    for scene, slow in zip(scenes, whole, strict=True):
        np.testing.assert_array_equal(scene.verdict(world).all, slow.all)
    starts = [(scene.frames.start, scene.frames.stop) for scene in scenes]
    assert starts[0][0] == 0 and starts[-1][1] == scenes[0].video.shape[1]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(starts))


def test_a_calibrated_order_is_stored_in_its_bundle(run_script, tmp_path):
    tiny.phenaki().save(tmp_path / "model")
    flags = [f"--model={tmp_path}/model", "--count=3", "--places=2"]
    done = run_script("experiments/calibrate_order.py", *flags, quick=True)
    assert done.returncode == 0, done.stderr
    model = Phenaki.load(tmp_path / "model")
    places = model.defaults.sample["calibrated"]
    assert len(set(places)) == 2
    call = dict(seed=0, order="calibrated", schedule="late", steps=2, trace=True)
    first = model.sample(["a red circle moves left"], **call).trace.history[0, 0]
    assert np.flatnonzero(first != model.network.mask_id).tolist() == [places[0]]
    flags[2] = f"--places={model.spec.tokens() + 1}"
    done = run_script("experiments/calibrate_order.py", *flags, quick=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"must be at most the {model.spec.tokens()} tokens of a clip" in done.stderr


def test_table_2_trains_measures_and_goes_on(run_script, tmp_path):
    flags = [
        "--tokenizer_steps=2", "--seeds=1", "--count=2", "--designs=2", "--mixtures=50/50",
        f"--workdir={tmp_path}", "--steps=2", "--optimizer=muon",
    ]  # fmt: skip
    done = run_script("experiments/mix_images.py", *flags, quick=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "table2.json").read_text())
    assert report["optimizer"] == "muon"
    for run in ("tokenizer_0", "design2_50_50_clips_0"):
        assert json.loads((tmp_path / run / "config.json").read_text())["optim"]["name"] == "muon"
    one = run_script("experiments/mix_images.py", *flags, "--budgets=clips", quick=True)
    assert "equal clips" in one.stdout and "equal steps" not in one.stdout
    assert [row["budget"] for row in report["rows"]] == ["steps", "clips"]
    assert [row["clips"] for row in report["rows"]] == [[32], [64]]
    assert report["by_chance"]["2"] == pytest.approx(0.217, abs=1e-3)
    assert (tmp_path / "table2.png").stat().st_size > 1000
    assert "| 2: no video is called purple | 50/50 | equal clips | " in done.stdout
    again = run_script("experiments/mix_images.py", *flags, quick=True)
    assert "training:" not in one.stderr and "training:" not in again.stderr
    assert json.loads((tmp_path / "table2.json").read_text()) == report
