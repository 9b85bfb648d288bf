"""Stories window by window: cached windows are reused, changed ones are not; memory is bounded."""

import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import weakref
from pathlib import Path

import av
import einops
import numpy as np
import pytest
import tiny
from PIL import Image

from phenaki.data import batches
from phenaki.data.shapes import render as moving_shapes
from phenaki.data.shapes import world as shapes_world
from phenaki.errors import UserError
from phenaki.io import images
from phenaki.pipeline import Sample
from phenaki.progress import Progress
from phenaki.sampling.windows import windows
from phenaki.stories import drift, generate, prompt_check, render, rerolls
from phenaki.stories.generate import DriftOptions, WindowCache, generate_windows, match_colours
from phenaki.stories.rerolls import digests, reroll
from phenaki.stories.storyboard import Shot, Storyboard

ROOT = Path(__file__).parents[1]
SHOTS = [
    Shot("a red circle moves right", 2.1, seed=3),  # two windows
    Shot("then a blue circle moves right", 1.5, seed=3),  # two
    Shot("a green square moves up", 1.4, cut=True, seed=3),
]
IMAGE = np.random.default_rng(0).uniform(size=(16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return tiny.phenaki()


def iterate(model, folder, shots=SHOTS, image=IMAGE, **drift):
    plan = windows(shots, model.spec, 5)
    cache = WindowCache(folder)
    return generate_windows(model, Storyboard(shots, 5), plan, cache, lambda path: image, **drift)


def generated(model, folder, shots=SHOTS, stop=None, **drift):
    """[(frames, tokens, sampled)] of the first `stop` windows."""
    parts = []
    for part in iterate(model, folder, shots, **drift):
        parts.append((part.frames, part.tokens, part.sampled))
        if len(parts) == stop:
            break
    return parts


def sampled(parts):
    return [part[2] for part in parts]


def equal(one, other):
    assert len(one) == len(other)
    for (x, a, _), (y, b, _) in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """(folder, windows) of the undisturbed story."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, generated(model, folder)


def test_generated_windows_are_the_models_story(model, whole):
    _, parts = whole
    video, _ = model.story(SHOTS, seed=3)
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), video)
    assert [part[0].shape[0] for part in parts] == [11, 6, 6, 6, 11]
    assert sampled(parts) == [True] * 5


def test_the_cache_has_frames_and_tokens_without_pickle(whole):
    folder, parts = whole
    files = sorted(folder.iterdir())
    assert [path.suffix for path in files] == [".npz"] * 5
    shapes = []
    for path in files:
        with np.load(path, allow_pickle=False) as file:
            assert (file["frames"].dtype, file["codes"].dtype) == (np.float32, np.int32)
            assert file["codes"].shape == (6, 2, 2)
            shapes.append(len(file["frames"]))
    assert sorted(shapes) == [6, 6, 6, 11, 11]


def _changed(name, change):
    return pytest.param(name, change, id=f"{name}-{change.__name__}")


def half_height(x):
    return x[:, :8]


def fewer(x):
    return x[:2]


def scalar(x):
    return x.ravel()[0]


def as_bytes(x):
    return (255 * x).astype(np.uint8)


def too_bright(x):
    return 1000 * x


def not_numbers(x):
    return np.full_like(x, np.nan)


def unknown_codes(x):
    return x + 10**6


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(_changed("frames", x) for x in (half_height, fewer, scalar, as_bytes, too_bright)),
        _changed("frames", not_numbers),
        *(_changed("codes", x) for x in (fewer, scalar, unknown_codes)),
    ],
)
@pytest.mark.parametrize("place", [0, 3])
def test_a_window_of_other_content_is_sampled_again(
    model, whole, tmp_path, caplog, place, name, change
):
    """The first would be the next one's context; after the other one is a cut."""
    folder, parts = whole
    shutil.copytree(folder, tmp_path / "windows")
    path = _file_of(tmp_path / "windows", parts[place])
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {name: change(arrays[name])})
    again = generated(model, tmp_path / "windows")
    equal(again, parts)
    assert [index for index, part in enumerate(again) if part[2]] == [place]
    assert f"{path}: is damaged ({'tokens' if name == 'codes' else name} are" in caplog.text


def _file_of(folder, part):
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            if np.array_equal(file["frames"], part[0]):
                return path
    raise AssertionError("no file has these frames")


def test_another_windows_file_under_a_name_is_noticed(model, whole, tmp_path, caplog):
    folder, parts = whole
    shutil.copytree(folder, tmp_path / "windows")
    one, other = (_file_of(tmp_path / "windows", parts[index]) for index in (1, 2))
    shutil.copyfile(other, one)
    equal(generated(model, tmp_path / "windows"), parts)
    assert f"{one}: is damaged (it is another window's)" in caplog.text


def test_a_folder_in_a_windows_place_is_named(model, whole, tmp_path):
    folder, parts = whole
    path = tmp_path / _file_of(folder, parts[0]).name
    path.mkdir()
    with pytest.raises(UserError, match=rf"{path.name}: is a folder where a window's file"):
        generated(model, tmp_path)


def test_windows_of_earlier_versions_have_no_key_and_are_read(model, whole, tmp_path):
    folder, parts = whole
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            np.savez(tmp_path / path.name, frames=file["frames"], codes=file["codes"])
    again = generated(model, tmp_path)
    equal(again, parts)
    assert not any(sampled(again))


def test_keys_of_windows_are_those_of_earlier_caches(model, tmp_path, monkeypatch):
    """Windows on users' disks are found only while a key is the same hash of the same facts.

    A new version of the package may change them: windows are then sampled again.
    """
    monkeypatch.setattr(generate, "__version__", "0")
    monkeypatch.setattr(generate.checkpoint, "fingerprint", lambda params, config: "fingerprint")
    keys = [path.stem for _, path in newest(iterate(model, tmp_path), tmp_path)]
    assert keys == [
        "a808a2a3e1081cbcea085967",
        "8729847855f6231757f54bf2",
        "c8ea74b61b112be4886d1025",
        "99b970c4310413500d45ea0b",
        "0339c20e21a68b491658453d",
    ]
    options = {"steps": 2, "negative": "b"}
    shots = [change(SHOTS[0], cut=True, image=Path("a"), sampler=options)]
    drift = DriftOptions(True, 2, lambda context, frames, prompt: 0.0, "zero")
    keys = [path.stem for _, path in newest(iterate(model, tmp_path, shots, drift=drift), tmp_path)]
    assert keys == ["b4152dc3b7582807ea7c8915", "8734c1fe3f31153ca0edb4b4"]


def newest(parts, folder):
    """(window, the file that it added) of every window."""
    before = set(folder.iterdir())
    for part in parts:
        (path,) = set(folder.iterdir()) - before
        before.add(path)
        yield part, path


def test_an_interrupted_story_resumes_to_the_same_video(model, whole, tmp_path):
    generated(model, tmp_path, stop=2)
    newest = max(tmp_path.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    (tmp_path / ".half.partial").write_bytes(b"PK")  # killed while writing
    equal(generated(model, tmp_path, stop=2), whole[1][:2])
    newest.write_bytes(newest.read_bytes()[:1000])  # a disk that was full
    again = generated(model, tmp_path)
    assert sampled(again) == [False, True, True, True, True]
    equal(again, whole[1])


CHANGES = {
    "nothing": (lambda shots: shots, [False] * 5),
    # After a hard cut a window does not depend on those before it.
    "scene 1's prompt": (lambda s: [change(s[0], prompt="b"), *s[1:]], [1, 1, 1, 1, 0]),
    "scene 1's length": (lambda s: [change(s[0], seconds=1.4), *s[1:]], [0, 1, 1, 0]),
    "scenes before the cut": (lambda s: [Shot("b", 5.0), s[2]], [1] * 6 + [0]),
    "a prompt's white space": (
        lambda s: [change(s[0], prompt=f" {s[0].prompt}\n"), *s[1:]],
        [0] * 5,
    ),
    "scene 2's options": (
        lambda s: [s[0], change(s[1], sampler={"steps": 2}), s[2]],
        [0, 0, 1, 1, 0],
    ),
    "scene 2's negative": (
        lambda s: [s[0], change(s[1], sampler={"negative": "b"}), s[2]],
        [0, 0, 1, 1, 0],
    ),
    "scene 3's cut": (lambda s: [*s[:2], change(s[2], cut=False, seconds=0.75)], [0, 0, 0, 0, 1]),
    "scene 3's image": (lambda s: [*s[:2], change(s[2], image=Path("a"))], [0, 0, 0, 0, 1]),
    "a new end": (lambda s: [s[0], Shot("c", 0.75, seed=3)], [0, 0, 1]),
}
change = dataclasses.replace


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_story_reuses_what_did_not_change(model, whole, name, tmp_path):
    """Also how stories branch: two files with the same beginning share its windows."""
    for path in whole[0].iterdir():
        os.link(path, tmp_path / path.name)
    edit, expected = CHANGES[name]
    shots = edit(SHOTS)
    parts = generated(model, tmp_path, shots)
    assert sampled(parts) == [bool(x) for x in expected]
    alone = generated(model, tmp_path / "alone", shots)
    equal(parts, alone)


def test_a_rerolled_scene_is_new_and_what_was_before_it_stays(model, whole):
    folder, parts = whole
    second = digests(SHOTS)[1]
    again = generated(model, folder, reroll(SHOTS, {second: 1}))
    assert sampled(again) == [False, False, True, True, False]
    equal(again[:2], parts[:2])
    assert np.any(again[2][0] != parts[2][0])
    assert len({reroll(SHOTS, {second: n})[1].seed for n in range(50)}) == 50
    equal(generated(model, folder), parts)  # the old one is still there


def test_another_model_reuses_nothing(model, whole, monkeypatch):
    folder, _ = whole
    params = dict(model.params)
    params["maskgit"] = params["maskgit"] | {"position": params["maskgit"]["position"] + 1e-3}
    monkeypatch.setattr(model, "params", params)
    assert sampled(generated(model, folder, SHOTS[:1])) == [True, True]


def test_a_hard_cut_and_an_image_start_anew(model, whole, tmp_path):
    parts = generated(model, tmp_path, [SHOTS[0], change(SHOTS[2], image=Path("a"))])
    np.testing.assert_array_equal(parts[2][0][0], IMAGE)
    np.testing.assert_array_equal(
        parts[2][0], model.animate(IMAGE[None], [SHOTS[2].prompt], seed=3 + 2 * 1_000_003)[0]
    )


# --- drift options


def test_the_best_of_several_is_kept(model, whole, tmp_path):
    def darkest(before, frames, prompt):
        assert (before is None) == (len(frames) == 11)
        assert before is None or before.shape == (5, 16, 16, 3)
        return -frames.mean()

    wild = dict(temperature=3.0, guidance=0.0)  # or all three samples are the same
    shots = [change(SHOTS[0], sampler=wild)]
    drift = DriftOptions(candidates=3, score=darkest, score_name="darkest")
    some = generated(model, tmp_path, shots, drift=drift)
    means = model.generate([shots[0].prompt] * 3, seed=3, **wild).mean((1, 2, 3, 4))
    np.testing.assert_allclose(some[0][0].mean(), means.min(), rtol=1e-5)
    assert means.min() < means.max()
    assert sampled(generated(model, tmp_path, shots)) == [True, True]  # another hash than without


def test_matched_frames_have_the_others_mean_and_deviation():
    random = np.random.default_rng(0)
    like = random.uniform(0.4, 0.6, (11, 8, 8, 3)).astype(np.float32) * [1, 0.9, 0.8]
    frames = random.uniform(0.1, 0.3, (5, 8, 8, 3)).astype(np.float32)
    moved = match_colours(frames, like.astype(np.float32))
    np.testing.assert_allclose(moved.mean((0, 1, 2)), like.mean((0, 1, 2)), atol=1e-3)
    np.testing.assert_allclose(moved.std((0, 1, 2)), like.std((0, 1, 2)), atol=1e-3)
    flat = np.full_like(frames, 0.2)
    np.testing.assert_allclose(
        match_colours(flat, like.astype(np.float32)).std((0, 1, 2)), 0, atol=1e-5
    )


def test_matching_colours_changes_the_context_within_a_scene(model, whole, tmp_path, monkeypatch):
    contexts, sample = [], model.sample

    def watched(prompts, *, video, **keywords):
        contexts.append(video)
        return sample(prompts, video=video, **keywords)

    monkeypatch.setattr(model, "sample", watched)
    parts = generated(model, tmp_path, drift=DriftOptions(match_colours=True))
    np.testing.assert_array_equal(parts[0][0], whole[1][0][0])  # nothing to match yet
    before = match_colours(parts[0][0][-5:], parts[0][0])
    np.testing.assert_array_equal(contexts[1][0], before)
    assert np.any(before != parts[0][0][-5:])


# --- memory


def test_no_window_outlives_the_next_one(model, tmp_path):
    alive = []
    shots = [Shot("a", 6.0)]
    for part in iterate(model, tmp_path, shots):
        alive.append(weakref.ref(part.frames))
        del part
        assert sum(ref() is not None for ref in alive) <= 2
    gc.collect()
    assert len(alive) == 7
    assert not any(ref() is not None for ref in alive)


def near(x, y):
    return np.abs(x - y).mean((1, 2, 3))


def rendered(model, shots, output, folder=None):
    output.mkdir(exist_ok=True)
    return render.render(
        model,
        Storyboard(shots, 5),
        windows(shots, model.spec, 5),
        output,
        WindowCache(folder or output / "windows"),
        read_image=lambda path: IMAGE,
        distance=(near, "difference"),
        progress=lambda total: Progress(total, "windows"),
        world=batches.world(model.config),
    )


def test_ten_times_the_story_needs_no_more_memory(model, tmp_path, monkeypatch):
    random = np.random.default_rng(0)

    def sample(prompts, *, seed, video, progress):
        frames = random.uniform(size=(1, 11, 16, 16, 3)).astype(np.float32)
        return Sample(frames, np.zeros((1, 6, 2, 2), np.int32), None)

    monkeypatch.setattr(model, "sample", sample)

    def peak(seconds):
        tracemalloc.start()
        rendered(model, [Shot("a", seconds)], tmp_path / str(seconds))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(3.0)  # imports and fonts
    short, long = peak(7.5), peak(75.0)
    windows = 90 * 6 * 16 * 16 * 3 * 4  # bytes of those that the long one has more
    assert long - short < windows / 2  # the report grows, the frames do not


# --- a folder


def coarse(video):
    """Means of 4x4 pixels: the codec keeps no noise of single ones."""
    return einops.rearrange(video, "f (h p) (w q) c -> f h w c p q", p=4, q=4).mean((4, 5))


def mp4(path):
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        chapters = container.chapters()
    return np.stack(frames), chapters


def test_a_folder_has_all_there_is_to_a_story(model, whole, tmp_path):
    report = rendered(model, SHOTS, tmp_path, whole[0])
    video, chapters = mp4(tmp_path / "story.mp4")
    truth = np.concatenate([p[0] for p in whole[1]])
    error, other = (np.abs(coarse(video / 255) - coarse(x)).mean() for x in (truth, truth[::-1]))
    assert error < 0.5 * other
    assert [chapter["metadata"]["title"] for chapter in chapters] == [s.prompt for s in SHOTS]
    assert [chapter["start"] * chapter["time_base"] for chapter in chapters] == [0, 17 / 8, 29 / 8]
    assert "00:00:02,125 --> 00:00:03,625\nthen a blue" in (tmp_path / "story.srt").read_text()
    assert images.read_frame(tmp_path / "story.png", (100, 100)).std() > 0.05
    figures = json.loads((tmp_path / "drift.json").read_text())
    assert figures["distance"] == "difference"
    assert [line["scene"] for line in figures["windows"]] == [1, 1, 2, 2, 3]
    assert [line["seam"] is None for line in figures["windows"]] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert (tmp_path / "drift.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "story_report.json").read_text()) == report
    assert (report["frames"], report["windows"], report["windows_made"]) == (40, 5, 0)
    assert report["seconds_per_second_of_video"] is None  # nothing was sampled
    assert report["peak_mb"]["last"] >= report["peak_mb"]["first"] > 10
    assert [scene["end"] for scene in report["scenes"]] == [17 / 8, 29 / 8, 5.0]
    assert set(report["scenes"][0]["windows_right"]) == set(report["windows_right"])


def test_killed_and_started_again_it_is_the_undisturbed_story(model, tmp_path):
    """The program itself: SIGKILL in the middle, then the same command."""
    Image.fromarray(np.full((40, 30, 3), 200, np.uint8)).save(tmp_path / "first.png")
    long = "then a blue circle moves right " * 3
    (tmp_path / "story.yaml").write_text(
        f"steps: 2\nscenes:\n  - prompt: a red circle moves right\n    seconds: 15\n"
        f"    image: first.png\n  - prompt: {long}\n    seconds: 0.1\n"
    )
    model.save(tmp_path / "model")
    command = [
        *(sys.executable, "scripts/sample.py", f"--model={tmp_path}/model"),
        *(f"--story={tmp_path}/story.yaml", f"--output={tmp_path}/out"),
    ]
    # Compiled as in this process, for equal bits.
    options = dict(env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, text=True)
    output = tmp_path / "out" / "windows"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **options) as process:
        deadline = time.monotonic() + 300
        while len(list(output.glob("*.npz"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "story.mp4").exists()
    left = {path: path.stat().st_mtime_ns for path in output.glob("*.npz")}

    done = subprocess.run(command, capture_output=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert f"{20 - len(left)} of 20 windows sampled" in done.stdout
    assert all(path.stat().st_mtime_ns == then for path, then in left.items())
    assert "first.png: 30x40 px resized and center-cropped to 16x16." in done.stderr
    assert "note: scene 2 asks for 0.1 s and lasts 0.75 s, one window." in done.stderr
    assert "note: scene 2: the text encoder cuts the end of 'then a blue" in done.stderr
    assert "windows: 20/20 (100%)" in done.stderr
    assert json.loads((tmp_path / "out" / "drift.json").read_text())["distance"] == "lpips_proxy"

    image = images.read_frame(tmp_path / "first.png", (16, 16))
    few = {"steps": 2}
    shots = [
        Shot("a red circle moves right", 15.0, True, 0, tmp_path / "first.png", few),
        Shot(long.strip(), 0.1, sampler=few),
    ]
    alone = tmp_path / "alone"
    for _ in iterate(model, alone, shots, image):
        pass
    names = sorted(path.name for path in alone.iterdir())
    assert names == sorted(path.name for path in output.iterdir())
    for name in names:
        one, other = np.load(output / name), np.load(alone / name)
        np.testing.assert_array_equal(one["codes"], other["codes"])
        np.testing.assert_array_equal(one["frames"], other["frames"])
    assert len(mp4(tmp_path / "out" / "story.mp4")[0]) == 11 + 6 * 19


# --- statistics


def test_a_prompt_is_read_back_from_its_words():
    world = shapes_world.World()
    wanted = prompt_check.parse_prompt(
        world, "a red circle moves up, then a blue square moves left"
    )
    assert wanted is not None
    assert wanted.combination.tolist() == [[2, 1, 1]]
    assert prompt_check.parse_prompt(world, "a red circle") is None
    assert prompt_check.parse_prompt(world, None) is None


def test_windows_of_true_clips_are_right_and_of_others_wrong():
    world = shapes_world.World(radius=5.5, sizes=("large",))
    clips = moving_shapes.render(world, "test", np.arange(10))
    for video, caption in zip(clips["video"] / 255, clips["caption"], strict=True):
        video = video.astype(np.float32)
        whole = prompt_check.check_window(world, video, None, caption)
        later = prompt_check.check_window(world, video[5:], video[4], caption)
        assert (
            whole
            == later
            == dict.fromkeys(("colour", "shape", "present", "direction", "all", "identity"), True)
        )
        changed = np.concatenate([video[:-1], 1 - video[-1:]])  # another colour in one frame
        last = prompt_check.check_window(world, changed[5:], video[4], caption)
        assert last is not None
        assert (last["colour"], last["identity"]) == (True, False)
        back = prompt_check.check_window(world, video[::-1], None, caption)
        assert back is not None
        assert (back["colour"], back["direction"], back["all"]) == (True, False, False)


def test_windows_of_two_objects_are_judged_by_both():
    world = shapes_world.World(size=64, radius=10.0, pair=1.0, sizes=("large",))
    clips = moving_shapes.render(world, "test", np.arange(6))
    for video, caption in zip(clips["video"] / 255, clips["caption"], strict=True):
        video, (first, second) = video.astype(np.float32), caption.split(" and ")
        for asked in (caption, f"{second} and {first}"):
            whole = prompt_check.check_window(world, video, None, asked)
            assert whole == prompt_check.check_window(world, video[5:], video[4], asked)
            assert whole is not None
            assert all(whole.values())
        one = prompt_check.check_window(world, video, None, first)
        assert one is not None
        assert (one["present"], one["all"]) == (False, False)
        other = next(name for name in world.shapes if name not in second)
        wrong = " ".join(other if word in world.shapes else word for word in second.split())
        found = prompt_check.check_window(world, video, None, f"{first} and {wrong}")
        assert found is not None
        assert (found["colour"], found["shape"], found["all"]) == (True, False, False)


@pytest.mark.parametrize(
    "prompt",
    ["a red circle and a blue square", "a red circle moves up and down", "red and blue",
     "a red circle moves up and a red square moves down", "a red circle moves up", None],
)  # fmt: skip
def test_prompts_without_two_whole_objects_are_no_pairs(prompt):
    assert prompt_check.parse_pair(shapes_world.World(), prompt) is None


def test_drift_figures():
    random = np.random.default_rng(0)
    frames = random.uniform(size=(6, 16, 16, 3)).astype(np.float32)
    tokens = np.array([[[0, 1], [2, 0]]])
    line = drift.measure(frames, tokens, frames[0], near)
    np.testing.assert_allclose(line["mean"], frames.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(line["std"], frames.std((0, 1, 2)), rtol=1e-6)
    assert (line["codes"], line["seam"]) == (3 / 4, 0)
    np.testing.assert_allclose(line["step"], near(frames[:-1], frames[1:]).mean(), rtol=1e-6)
    assert drift.measure(frames, tokens, None, near)["seam"] is None
    assert drift.measure(frames[:1], tokens, None, near)["step"] is None


def test_blur_lowers_sharpness_and_flat_has_none():
    edge = np.zeros((1, 16, 16, 3), np.float32)
    edge[:, :, 8:] = 1
    soft = (edge + np.roll(edge, 1, 2)) / 2
    assert drift.sharpness(edge) > 1.5 * drift.sharpness(soft[:, :, 2:-2]) > 0
    assert drift.sharpness(np.ones_like(edge)) < 1e-12


def test_a_summary_compares_both_ends():
    line = dict(mean=[0.2] * 3, std=[0.1] * 3, codes=0.5, seam=None, step=0.1)
    lines = [line | {"sharpness": float(x)} for x in range(30)]
    summary = drift.summary(lines)
    assert summary["sharpness"] == {"first": 4.5, "last": 24.5}
    assert "seam" not in summary
    assert drift.summary(lines[:3])["sharpness"] == {"first": 0.0, "last": 2.0}


def test_an_empty_story_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="at least one scene"):
        generated(model, tmp_path, [])


# --- rerolls


def test_a_reroll_is_of_a_scene_of_a_story_and_not_of_a_folder(tmp_path):
    path = tmp_path / "rerolls.json"
    rerolls.record(path, SHOTS, 2)
    rerolls.record(path, SHOTS, 2)

    def seeds(shots):
        return [shot.seed for shot in reroll(shots, rerolls.read(path))]

    first, new, third = seeds(SHOTS)
    assert (first, third) == (3, 3)
    assert new == reroll(SHOTS, {digests(SHOTS)[1]: 2})[1].seed != 3
    assert not rerolls.notes(path, SHOTS)
    others = {
        "another first scene": [change(SHOTS[0], prompt="b"), *SHOTS[1:]],
        "another prompt": [SHOTS[0], change(SHOTS[1], prompt="b"), SHOTS[2]],
        "another seed": [change(shot, seed=8) for shot in SHOTS],
        "another order": [SHOTS[1], SHOTS[0], SHOTS[2]],
        "a cut": [SHOTS[0], change(SHOTS[1], cut=True), SHOTS[2]],
    }
    for shots in others.values():
        assert seeds(shots) == [shot.seed for shot in shots]
        assert "1 rerolled scenes are not of this story" in rerolls.notes(path, shots)[0]


def test_a_reroll_stays_while_other_parts_of_the_story_change(tmp_path):
    path = tmp_path / "rerolls.json"
    rerolls.record(path, SHOTS, 3)
    (_, _, new) = reroll(SHOTS, rerolls.read(path))
    kept = [
        [change(SHOTS[0], prompt="b"), *SHOTS[1:]],  # before its hard cut
        [*SHOTS, Shot("after", 1.0)],
        [*SHOTS[:2], change(SHOTS[2], sampler={"steps": 2}, seconds=3.0)],
        [SHOTS[0], SHOTS[2]],
    ]
    for shots in kept:
        found = [shot.seed for shot in reroll(shots, rerolls.read(path))]
        assert found.count(new.seed) == 1


def test_of_equal_scenes_one_is_rerolled(tmp_path):
    shots = [Shot("a", 1.4, cut=True)] * 3
    rerolls.record(tmp_path / "r.json", shots, 2)
    seeds = [shot.seed for shot in reroll(shots, rerolls.read(tmp_path / "r.json"))]
    assert [seed == 0 for seed in seeds] == [True, False, True]


def test_rerolls_of_earlier_versions_are_noted_and_kept(tmp_path):
    path = tmp_path / "rerolls.json"
    path.write_text('{"2": 1}\n')
    assert reroll(SHOTS, rerolls.read(path)) == SHOTS
    (note,) = rerolls.notes(path, SHOTS)
    assert "a version that did not record the story; not applied" in note
    rerolls.record(path, SHOTS, 1)
    assert rerolls.read(path) == {"2": 1, digests(SHOTS)[0]: 1}


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', '{"a": true}'])
def test_another_file_of_rerolls_is_refused(tmp_path, content):
    (tmp_path / "rerolls.json").write_text(content)
    with pytest.raises(UserError, match=r"rerolls\.json: is no file of rerolls"):
        rerolls.read(tmp_path / "rerolls.json")


def test_a_scene_that_there_is_not_is_not_rerolled(tmp_path):
    with pytest.raises(UserError, match="--reroll=4: the story has 3 scenes"):
        rerolls.record(tmp_path / "r.json", SHOTS, 4)
    assert not list(tmp_path.iterdir())
