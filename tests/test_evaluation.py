"""Protocols, their store, and what is printed, on a tiny model and made-up networks."""

import dataclasses
import json
import re
import types

import clip_sets
import feature_stand_ins
import numpy as np
import pytest
import tiny
from absl.testing import flagsaver

from configs import tables
from phenaki.data import batches, format
from phenaki.data.shapes import render
from phenaki.data.shapes import world as shapes_world
from phenaki.errors import UserError
from phenaki.evaluation import alignment, devices, extractors, protocol, references
from phenaki.evaluation.metrics import frechet
from phenaki.evaluation.references import ClipWindows, Prepared, ShapesClips
from phenaki.evaluation.score import Score, compare, save_scores, text_table
from phenaki.evaluation.store import Store
from phenaki.evaluation.task import PREDICTED, Task, task_of
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.reports import scoreboard

BUILD = extractors.build
COUNT = 6


@pytest.fixture(scope="module")
def made_up():
    return feature_stand_ins.networks()


@pytest.fixture(scope="module")
def evaluate():
    yield from feature_stand_ins.script()


@pytest.fixture(autouse=True)
def stand_ins(made_up, monkeypatch):
    monkeypatch.setattr(extractors, "build", feature_stand_ins.builder(made_up))


@pytest.fixture(scope="module")
def model():
    whole = tiny.phenaki()
    return Phenaki(whole.config, whole.params).shard(devices.local_mesh(), pad=True)


@pytest.fixture(scope="module")
def tokenizer(model):
    return FrozenTokenizer(
        factory.tokenizer(model.config),
        model.params["tokenizer"],
        model.spec,
        checkpoint.fingerprint(model.params["tokenizer"], model.config.to_dict()),
        rows=1,
    )


@pytest.fixture(scope="module")
def world(model):
    return batches.world(model.config)


@pytest.fixture
def clips(world):
    return ShapesClips(world, "test", COUNT)


@pytest.fixture(scope="module")
def numbers(world):
    """One network's features of real clips, shuffled ones, and noisy ones."""
    video = render.render(world, "test", np.arange(200))["video"].astype(np.float32) / 255
    return video


def distance(made_up, network, feature, real, fake):
    fits = []
    for video in (real, fake):
        found = made_up[network](video)[feature]
        fits.append(frechet.gaussian_of(found.reshape(-1, found.shape[-1])))
    return frechet.distance(*fits)


def test_fvd_sees_shuffled_frames_and_fid_does_not(numbers, made_up):
    order = np.random.default_rng(0).permutation(numbers.shape[1])
    shuffled = numbers[:, order]
    assert abs(distance(made_up, "inception", "pool", numbers, shuffled)) < 1e-5
    halves = distance(made_up, "i3d", "logits", numbers[::2], numbers[1::2])
    assert distance(made_up, "i3d", "logits", numbers, shuffled) > 3 * halves


@pytest.mark.parametrize("network, feature", (("inception", "pool"), ("i3d", "logits")))
def test_distances_grow_with_noise(numbers, made_up, network, feature):
    noise = np.random.default_rng(0).normal(size=(*numbers.shape[:2], 1, 1, 3)).astype(np.float32)
    found = [
        distance(made_up, network, feature, numbers, numbers + scale * noise)
        for scale in (0, 0.05, 0.2, 0.6)
    ]
    assert all(np.diff(found) > 0)


def reconstruction_task(**fields):
    row = tables.TABLES[3]["rows"]["cvivit"]
    metrics = tuple(m for m in row["metrics"] if m != "fid")
    return task_of(row, frames=11, per_shard=4, metrics=("fid", *metrics), **fields)


def test_reconstruction_measures_both_choices_of_ten_frames(tmp_path, tokenizer, clips):
    scores = protocol.evaluate(reconstruction_task(), tokenizer, clips, tmp_path, "weights", 0)
    found = {score.name: score for score in scores}
    real, _ = clips.read(0, COUNT)
    fake, tokens = tokenizer.reconstruct(real)
    fake = extractors.bytes_of(fake)
    error = np.square(fake - real).mean((2, 3, 4))
    for view, (start, stop) in tables.TEN.items():
        expected = (-10 * np.log10(error[:, start:stop])).mean()
        assert found[f"psnr/{view}"].value == pytest.approx(expected, rel=1e-5)
        assert found[f"fvd/{view}"].frames == 10
    assert found["fvd/first_ten"].value != found["fvd/last_ten"].value
    assert found["tokens"].value == 24 == tokens.shape[1]
    assert found["code_usage"].value == pytest.approx(len(np.unique(tokens)) / 32)
    score = found["fid/first_ten"]
    assert (score.n, score.n_real, score.frames, score.size) == (COUNT, COUNT, 10, (16, 16))
    assert (score.extractor, score.checksum, score.sampler) == ("inception pool_3", "0" * 16, None)
    assert score.interval[0] < score.value < score.interval[1]
    assert (score.floor > 0, score.floor_n) == (True, COUNT // 2)


def test_a_killed_evaluation_resumes_and_gives_the_same(tmp_path, tokenizer, clips, monkeypatch):
    whole = protocol.evaluate(
        reconstruction_task(), tokenizer, clips, tmp_path / "whole", "weights", 0
    )
    calls = []
    through = tokenizer.reconstruct

    def reconstruct(video):
        calls.append(len(video))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return through(video)

    monkeypatch.setattr(tokenizer, "reconstruct", reconstruct)
    with pytest.raises(KeyboardInterrupt):
        protocol.evaluate(reconstruction_task(), tokenizer, clips, tmp_path / "cut", "weights", 0)
    again = protocol.evaluate(
        reconstruction_task(), tokenizer, clips, tmp_path / "cut", "weights", 0
    )
    assert calls == [4, 2, 2]  # the first shard was complete
    assert again == whole
    longer = ShapesClips(clips.world, "test", COUNT + 2)
    protocol.evaluate(reconstruction_task(), tokenizer, longer, tmp_path / "cut", "weights", 0)
    assert calls[3:] == [4]  # more clips redo the last, short shard only


def test_prediction_keeps_the_given_frames_and_scores_both_ways(tmp_path, model, clips):
    row = dict(task="prediction", metrics=("fvd",), given=5, samples=2)
    task = task_of(row, frames=11, per_shard=8, sampler=dict(steps=2))
    scores = protocol.evaluate(task, model, clips, tmp_path, extractors.RANDOM, 0)
    assert [score.name for score in scores] == [f"fvd/{way}_proxy" for way in PREDICTED]
    assert [(score.n, score.n_real) for score in scores] == [(2 * COUNT, COUNT)] * 2
    assert scores[0].value != scores[1].value
    assert scores[0].sampler["steps"] == 2
    video, captions = clips.read(0, 2)
    made = protocol._predict(task, model, video, captions, 0, 0).videos
    np.testing.assert_array_equal(made["originals"][:, :5], video[:, :5])
    np.testing.assert_allclose(
        made["through_codec"][:, :5], model.reconstruct(video[:, :5]), atol=1e-6
    )
    np.testing.assert_array_equal(made["originals"][:, 5:], made["through_codec"][:, 5:])


def test_sixteen_frames_of_a_model_of_seventeen(model):
    """Tables 4 and 5: 16 = 1 + 15 is no legal length; the last frame is made and cut off."""
    video = np.random.default_rng(0).uniform(size=(1, 10, 16, 16, 3)).astype(np.float32)
    task = Task("prediction", ("psnr",), frames=10, given=1)  # here: 10 of 11
    made = protocol._predict(task, model, video, [None], 0, 0).videos["originals"]
    assert made.shape == video.shape


def test_text_gets_its_prompt_and_a_proxy_its_name(tmp_path, model, clips, monkeypatch):
    asked = []
    generate = model.generate

    def spy(prompts, **options):
        asked.extend(prompts)
        return generate(prompts, **options)

    monkeypatch.setattr(model, "generate", spy)
    row = dict(tables.TABLES[1]["rows"]["phenaki"], metrics=("fid", "inception_score"))
    task = task_of(row, frames=11, per_shard=8, sampler=dict(steps=1))
    scores = protocol.evaluate(task, model, clips, tmp_path, extractors.RANDOM, 0)
    assert asked == [f"a video of {caption}" for caption in clips.read(0, COUNT)[1]]
    assert [score.name for score in scores] == ["fid_proxy", "inception_score_proxy"]


def test_samples_do_not_depend_on_the_number_of_devices(model):
    one = tiny.phenaki()
    prompts = ["a red circle moves left"] * 8
    np.testing.assert_allclose(
        model.generate(prompts, seed=3, steps=2), one.generate(prompts, seed=3, steps=2), atol=1e-5
    )
    assert len(model.encode(np.zeros((8, 1, 16, 16, 3))).sharding.device_set) == 8


def test_windows_follow_one_another_within_a_clip(clips):
    windows = ClipWindows(clips, frames=9, count=3)
    whole, captions = clips.read(1, 3)
    video, found = windows.read(4, 8)
    assert windows.total == 3 * COUNT
    for item, (clip, start) in zip(video, ((0, 1), (0, 2), (1, 0), (1, 1)), strict=True):
        np.testing.assert_array_equal(item, whole[clip, start : start + 9])
    assert found == [captions[0]] * 2 + [captions[1]] * 2


def score(name, **fields):
    known = dict(value=1.5, n=4, n_real=4, frames=11, size=(8, 8), fps=8.0, seed=0)
    network = dict(extractor="i3d", checksum="", resize="none", value_range="[0, 1]")
    return Score(name=name, **known, **network, **fields)


def test_the_papers_number_is_compared_with_ours_but_never_with_a_proxy():
    printed, differs = dict(fid=4.5, fvd=65.78), dict(fvd="its clips are unknown")
    rows = compare([score("fid"), score("fvd/last_ten")], printed, differs)
    assert [row[4:] for row in rows] == [
        ["4.5", "comparable"],
        ["65.78", "not comparable: its clips are unknown"],
    ]
    rows = compare([score("fid_proxy"), score("fvd/last_ten_proxy")], printed, differs)
    assert not any(number in text_table(rows) for number in ("4.5", "65.78"))
    assert all("untrained features" in row[5] for row in rows)


def test_a_saved_score_keeps_what_it_depends_on(tmp_path):
    save_scores(tmp_path / "t.json", [score("fid", sampler=dict(steps=3))], table=3)
    kept = json.loads((tmp_path / "t.json").read_text())
    assert kept["table"] == 3
    needed = "value checksum resize value_range n frames fps seed sampler interval floor"
    assert set(needed.split()) <= set(kept["records"][0])


def test_settings_of_a_store_never_mix(tmp_path):
    stores = [Store(tmp_path, "x", dict(seed=seed), 3, 2) for seed in (0, 1, 0)]
    stores[0].fill(lambda start, stop: {"a": np.arange(start, stop)}, "items")
    assert stores[1].missing() == [0, 1]
    assert stores[2].missing() == []
    assert stores[2].array("a").tolist() == [0, 1, 2]
    next(stores[0].directory.glob("*.npz")).write_bytes(b"PK")
    with pytest.raises(UserError, match="delete it and run again"):
        stores[0].array("a")


@pytest.mark.parametrize(
    "fields, message",
    (
        (dict(views=dict(short=(0, 8))), "FVD of 8 frames is undefined: I3D needs 9 or more"),
        (dict(views=dict(late=(2, 12))), r"late: frames 2 .. 11 of clips of 11"),
        (dict(metrics=("fdv",)), "metrics='fdv' must be one of fid, .*; did you mean fvd"),
    ),
)
def test_a_task_that_cannot_work_is_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        reconstruction_task_of(**fields)


def reconstruction_task_of(**fields):
    return Task(**(dict(task="reconstruction", metrics=("fvd",), frames=11) | fields))


def test_one_clip_is_refused(tmp_path, tokenizer, world):
    with pytest.raises(UserError, match="1 reference clip: a comparison needs 2 or more"):
        protocol.evaluate(
            reconstruction_task(), tokenizer, ShapesClips(world, "test", 1), tmp_path, "w", 0
        )


def test_clips_out_of_range_are_refused_before_features(tmp_path, tokenizer, clips):
    wrong = types.SimpleNamespace(
        total=COUNT, identity={}, read=lambda a, b: (np.full((b - a, 3, 16, 16, 3), 0.5), [])
    )
    with pytest.raises(UserError, match="reference clips: have 3 frames"):
        protocol.evaluate(reconstruction_task(), tokenizer, wrong, tmp_path, "weights", 0)


def test_every_row_of_the_tables_is_a_task():
    for table in tables.TABLES.values():
        for row in table["rows"].values():
            task = task_of(row, frames=11, per_shard=8)
            printed = set(row["printed"])
            assert printed <= set(row["metrics"])
            assert set(row["differs"]) <= set(row["metrics"])
            assert task.frames in (1, 11, 16)


def test_confusions_count_what_was_asked(world):
    """Ground truth is on the diagonal, and a clip of another colour next to it."""
    plain = dataclasses.replace(world, then=0.0, pair=0.0)
    made = render.render(plain, "test", np.arange(60))
    clips = made["clips"]
    combination = np.stack([clips.colour[:, 0], clips.shape[:, 0], clips.direction[:, 0]], -1)
    video = made["video"].astype(np.float32) / 255
    clips = alignment.JudgedClips(video, alignment.prompts_of(plain, combination))
    for _, _, counts in alignment.confusion(plain, [clips, clips]).values():
        assert counts.sum() == 120
        assert np.trace(counts) >= 118
    asked = combination.copy()
    asked[0, 0] = (asked[0, 0] + 1) % len(world.colours)
    wrong = alignment.JudgedClips(video, alignment.prompts_of(plain, asked))
    counts = alignment.confusion(plain, [wrong])["colour"][2]
    assert counts[asked[0, 0], combination[0, 0]] == 1
    still = alignment.JudgedClips(np.zeros_like(video), clips.prompts)
    assert (still.seen(plain) == -1).all()


def test_stills_only_asks_for_colours_that_no_clip_shows(model, monkeypatch):
    world = shapes_world.World(size=16, radius=2.0, speed=0.5, still_colours=("purple",))
    monkeypatch.setattr(
        alignment, "sample", lambda model, texts, seed: np.zeros((len(texts), 2, 4, 4, 3))
    )
    monkeypatch.setattr(alignment, "stories", lambda *arguments: [])
    rows = alignment.judged_clips(model, world, count=5)
    assert list(rows) == ["seen", "held_out", "stills_only"]
    assert all("purple" in prompt for prompt in rows["stills_only"].prompts.texts)


def write_clips(folder, videos, captions, kind="video", split="validation"):
    """A prepared set of uint8 clips of 16 px, in the order given."""
    form = format.ClipFormat(frames=11, fps=8.0, height=16, width=16, encoding="png")
    records = [
        format.ClipRecord(
            str(index), format.encode(video, "png"), caption, "here", "0", (16, 16), 0.0, 8.0
        )
        for index, (video, caption) in enumerate(zip(videos, captions, strict=True))
    ]
    return clip_sets.write(folder, form, {f"{kind}_{split}": records}, per_shard=7)


@pytest.fixture(scope="module")
def prepared(world, tmp_path_factory):
    """Four captioned clips on disk."""
    folder = tmp_path_factory.mktemp("clips")
    made = render.render(world, "test", np.arange(4))
    return write_clips(folder, made["video"], made["caption"])


def test_prepared_clips_are_those_that_were_written(prepared, world):
    clips = Prepared(str(prepared), "validation", "video", 10, (16, 16), 8.0)
    made = render.render(world, "test", np.arange(4))
    for start, stop in ((0, 1), (1, 4), (2, 3)):
        video, captions = clips.read(start, stop)
        numbers = references.order(4)[start:stop]
        np.testing.assert_allclose(video, made["video"][numbers, :10] / 255, atol=1e-6)
        assert captions == [made["caption"][number] for number in numbers]
    with pytest.raises(UserError, match="prepare the reference with --frames=11 --size=32x32"):
        Prepared(str(prepared), "validation", "video", 11, (32, 32), 8.0)
    with pytest.raises(UserError, match="has no video in split train"):
        Prepared(str(prepared), "train", "video", 11, (16, 16), 8.0)


def test_a_row_from_the_command_line(evaluate, prepared, model, tmp_path, capsys):
    model.save(tmp_path / "model")
    flags = dict(table="3", row="cvivit", model=str(tmp_path / "model"), data=str(prepared))
    flags |= dict(output=str(tmp_path / "out"), batch=2)
    for weights, papers in (("weights", True), ("random", False)):
        # absl's flags are global; the script's leave them again.
        with flagsaver.flagsaver(**flags, weights=weights):
            evaluate.main([])
        output = capsys.readouterr().out
        assert ("65.78" in output) is papers
        assert ("not comparable: the paper does not say which 10 of 11" in output) is papers
        assert ("fvd/first_ten_proxy" in output) is not papers
    kept = json.loads((tmp_path / "out/table3-cvivit.json").read_text())
    assert [score["n"] for score in kept["records"]] == [4] * len(kept["records"])


@pytest.mark.parametrize(
    "flags, message",
    (
        (dict(table="3", row="vae"), "--row='vae' must be one of conv, conv_video, vit"),
        (dict(table="3", row="vit", repeats=2), "--repeats=2: a reconstruction is no sample"),
        (dict(table="4"), "--model is required: a checkpoint that configs/maskgit.py:k600 trained"),
        (dict(table="all"), "--table=all goes with --preset=laptop"),
    ),
)
def test_wrong_commands_are_one_line(evaluate, flags, message):
    with flagsaver.flagsaver(**flags), pytest.raises(UserError, match=message):
        evaluate.main([])


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match="python scripts/convert_weights.py --network=i3d"):
        BUILD.__wrapped__("i3d", str(tmp_path))
    with pytest.raises(UserError, match="a CLIP score needs trained weights"):
        extractors._clip({}, extractors.RANDOM)


def test_the_page_has_every_table_and_nothing_of_the_papers(
    model, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "load", lambda directory: model)
    monkeypatch.setattr(scoreboard.FrozenTokenizer, "load", lambda directory: tokenizer)
    monkeypatch.setattr(scoreboard, "LONG", 2)
    preset = tables.LAPTOP | dict(alignment=2, clips=2, resamples=3)
    page = scoreboard.scoreboard("here", tmp_path, preset, "nowhere", 0)
    page.save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    for number in tables.TABLES:
        assert f"Table {number}: " in text
    assert "fvd/through_codec_proxy" in text
    assert text.count("Confusions: ") == 4
    assert "http" not in text.split("</style>")[1].split("<h1>")[0]
    shown = re.sub(r'src="[^"]*"', "", text)
    for table in tables.TABLES.values():
        for row in table["rows"].values():
            for measure, value in row["printed"].items():
                assert measure == "tokens" or f">{value:g}<" not in shown
    kept = json.loads((tmp_path / "scoreboard.json").read_text())
    assert set(kept["without_text"]) == {"samples without text", "unseen clips"}
    assert "Samples without text" in text
    assert set(kept["alignment"]) == {
        "ceiling",
        "seen",
        "held_out",
        "scene_1",
        "scene_2",
        "scene_3",
    }
    assert all(
        score["name"].endswith("_proxy") == bool(score["checksum"]) for score in kept["records"]
    )
