"""What scores depend on: the order of clips, the numbers of samples, and settings on record."""

import dataclasses
import json
import types
from pathlib import Path

import clip_sets
import feature_stand_ins
import jax
import numpy as np
import pytest
import tiny
from absl.testing import flagsaver
from jax.experimental import multihost_utils

from phenaki.data import clip_records, format, stored_clips
from phenaki.data import clips as clip_streams
from phenaki.data.shapes.world import World
from phenaki.errors import UserError
from phenaki.evaluation import alignment, devices, extractors, protocol, references, settings
from phenaki.evaluation.references import ClipWindows, Prepared, ShapesClips
from phenaki.evaluation.score import Score, sampler_cell
from phenaki.evaluation.store import Store
from phenaki.evaluation.task import PREDICTED, Task
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.sampling import options, sampler

CLASSES, EACH = ("ash", "elm", "fir", "oak"), 40
COUNT = 6
WORLD = World(size=16, radius=2.0, speed=0.5, then=0.0, pair=0.0)


@pytest.fixture(scope="module")
def networks():
    return feature_stand_ins.networks()


@pytest.fixture(autouse=True)
def stand_ins(networks, monkeypatch):
    monkeypatch.setattr(extractors, "build", feature_stand_ins.builder(networks))


@pytest.fixture(scope="module")
def evaluate():
    yield from feature_stand_ins.script()


@pytest.fixture(scope="module")
def model():
    whole = tiny.phenaki()
    return Phenaki(whole.config, whole.params).shard(devices.local_mesh(), pad=True)


@pytest.fixture
def clips():
    return ShapesClips(WORLD, "test", COUNT)


# --- the order of clips


def write_classes(folder: Path, shade: int = 0) -> Path:
    """Images of four classes, one class after the other; each shows its number by its colour."""
    form = format.ClipFormat(frames=11, fps=8.0, height=16, width=16, encoding="png")
    made = []
    for number in range(len(CLASSES) * EACH):
        image = np.full((1, 16, 16, 3), (number, number // EACH * 60, shade), np.uint8)
        frames, caption = format.encode(image, "png"), CLASSES[number // EACH]
        made.append(format.ClipRecord(str(number), frames, caption, "", "", (16, 16), 0.0, 0.0))
    return clip_sets.write(folder, form, {"image_validation": made}, per_shard=33)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("classes") / "set")


def images_of(directory) -> Prepared:
    return Prepared(str(directory), "validation", "image", 1, (16, 16), 8.0)


def test_the_order_is_a_permutation_by_count_and_seed_alone():
    for count in (1, 2, 17, 1000):
        assert sorted(references.order(count)) == list(range(count))
        np.testing.assert_array_equal(references.order(count), references.order(count))
    # The same on every host, today and tomorrow: stored features are named by these places.
    assert references.order(8).tolist() == [4, 7, 0, 6, 5, 2, 3, 1]
    assert references.order(50, 0).tolist() != references.order(50, 1).tolist()


def test_the_first_clips_of_a_set_show_all_classes(classes):
    captions = images_of(classes).read(0, 40)[1]
    counts = [captions.count(name) for name in CLASSES]
    assert sum(counts) == 40
    assert min(counts) >= 4


def test_a_perfect_set_of_four_classes_has_an_inception_score_near_four(
    classes, model, tmp_path, monkeypatch
):
    def logits(video):
        kind = np.rint(video[:, :, 0, 0, 1] * 255 / 60).astype(int)  # [b f]
        return {"pool": video.mean((2, 3)), "logits": 40.0 * np.eye(4)[kind]}

    build = extractors.build
    monkeypatch.setattr(
        extractors,
        "build",
        lambda name, directory: dataclasses.replace(build(name, directory), run=logits),
    )

    def generate(prompts, *, seed, frames, first_row):
        kinds = np.array([CLASSES.index(prompt) for prompt in prompts]) * 60 / 255
        return np.broadcast_to(kinds[:, None, None, None, None], (len(prompts), 1, 16, 16, 3))

    monkeypatch.setattr(model, "generate", generate)
    task = Task("text_to_image", ("inception_score",), frames=1, per_shard=16)
    (score,) = protocol.evaluate(task, model, images_of(classes), tmp_path, "weights", 0)
    assert 3.4 < score.value <= 4  # of ten parts of 16: not quite 4


def test_limit_scores_a_random_part_of_the_set(classes, evaluate, model, tmp_path, monkeypatch):
    seen = []

    def evaluated(task, model, clips, *others):
        seen.extend(clips.read(0, clips.total)[1])
        return []

    monkeypatch.setattr(protocol, "evaluate", evaluated)
    monkeypatch.setattr(devices, "load", lambda directory: model)
    flags = dict(table="2", row="image_50", model="here", data=str(classes), limit=24)
    with flagsaver.flagsaver(**flags, output=str(tmp_path)):
        evaluate.main([])
    assert len(seen) == 24
    assert set(seen) == set(CLASSES)
    kept = json.loads((tmp_path / "table2-image_50.json").read_text())
    assert (kept["limit"], kept["split"], kept["data"]) == (24, "validation", str(classes))


class ReadRecords:
    """Records that note what is read of them."""

    def __init__(self, records):
        self.records, self.read = records, []

    def __getitem__(self, number):
        self.read.append(number)
        return self.records[number]


def test_clips_are_read_at_random_without_those_before_them(classes, monkeypatch):
    spec = clip_records.ClipSize(1, 16, 16, 8.0)
    stored = stored_clips.StoredClips(classes, "validation", "image", spec)
    stream = clip_streams.examples(
        str(classes), split="validation", kind="image", spec=spec, seed=0, shuffle=False
    )
    inorder = [next(stream) for _ in range(len(stored))]
    records = ReadRecords(stored._records)
    monkeypatch.setattr(stored, "_records", records)
    numbers = [150, 3, 77, 3]
    for number, example in zip(numbers, stored.take(numbers), strict=True):
        np.testing.assert_array_equal(example["video"], inorder[number]["video"])
        assert example["caption"] == inorder[number]["caption"]
    assert sorted(records.read) == sorted(numbers)


def test_a_corrupt_clip_is_not_replaced_by_another(tmp_path):
    write_classes(tmp_path / "set")
    whole = images_of(tmp_path / "set")
    shard = sorted((tmp_path / "set").glob("*tfrecord*"))[0]
    content = bytearray(shard.read_bytes())
    content[-10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match="record 32 is corrupt; write the data set again"):
        images_of(tmp_path / "set").read(0, whole.total)


def test_the_identity_of_a_set_is_its_content(classes, tmp_path):
    there = images_of(classes).identity
    assert images_of(write_classes(tmp_path / "copy")).identity == there
    assert images_of(write_classes(tmp_path / "other", shade=1)).identity != there
    assert there["order_seed"] == references.ORDER_SEED
    assert there["stored"] == len(CLASSES) * EACH


def test_windows_of_one_clip_are_resampled_and_halved_together(tmp_path, clips):
    """Windows one frame apart are nearly equal: they are not so many clips."""
    model = tiny.phenaki()
    network, params = factory.tokenizer(model.config), model.params["tokenizer"]
    tokenizer = FrozenTokenizer(network, params, model.spec, "0", rows=1)
    task = Task("reconstruction", ("fid", "psnr"), frames=9, per_shard=6, resamples=50)
    widths = []
    for found in (clips, ClipWindows(clips, frames=9, count=3)):
        fid, psnr = protocol.evaluate(task, tokenizer, found, tmp_path, "weights", 0)
        assert (fid.n, fid.floor_n) == (found.total, found.total // 2)
        widths.append([score.interval[1] - score.interval[0] for score in (fid, psnr)])
    # As independent clips the three windows would narrow the interval by 3 ** 0.5.
    for alone, windows in zip(*widths, strict=True):
        assert 0.75 < windows / alone < 1.35


# --- the numbers of samples


def test_keys_follow_the_number_of_a_sample():
    whole = jax.random.key_data(sampler.row_keys(7, 8))
    parts = [jax.random.key_data(sampler.row_keys(7, 3, first)) for first in (0, 3, 5)]
    for first, part in zip((0, 3, 5), parts, strict=True):
        np.testing.assert_array_equal(part, whole[first : first + 3])


PROMPTS = [f"a {colour} circle moves left" for colour in ("red", "green", "blue", "white")] * 2


def test_two_calls_sample_what_one_does():
    model = tiny.phenaki()
    whole = model.sample(PROMPTS, seed=5, known=np.zeros(model.spec.grid(), bool)).tokens
    halves = [
        model.sample(
            PROMPTS[:4], seed=5, known=np.zeros(model.spec.grid(), bool), first_row=first
        ).tokens
        for first in (0, 4)
    ]
    np.testing.assert_array_equal(np.concatenate(halves), whole)
    assert np.any(whole[:4] != whole[4:])


@pytest.mark.parametrize("group", (2, 3))
def test_alignment_does_not_depend_on_how_prompts_are_grouped(model, monkeypatch, group):
    rows = []
    for size in (group, 50):
        monkeypatch.setattr(alignment, "GROUP", size)
        rows.append(alignment.judged_clips(model, WORLD, 5, seed=3, steps=1))
    for name, row in rows[1].items():
        np.testing.assert_allclose(rows[0][name].video, row.video, atol=1e-5)


VIEWS = dict.fromkeys(PREDICTED, (0, 11))


@pytest.mark.parametrize(
    "fields",
    (
        dict(task="text_to_video", metrics=("fid", "fvd", "inception_score")),
        dict(task="prediction", metrics=("fvd",), given=5, samples=2, views=VIEWS),
    ),
    ids=lambda fields: fields["task"],
)
def test_scores_do_not_depend_on_the_batch(tmp_path, model, clips, fields):
    found = []
    for batch in (1, 3, 8):
        task = Task(frames=11, per_shard=batch, sampler=dict(steps=1), **fields)
        found.append(protocol.evaluate(task, model, clips, tmp_path, extractors.RANDOM, 4))
    close = dict(rel=1e-4, abs=1e-6)
    for scores in found[1:]:
        for one, other in zip(scores, found[0], strict=True):
            assert one.value == pytest.approx(other.value, **close)
            if other.interval is not None:  # an Inception score has none
                assert one.interval == pytest.approx(other.interval, **close)
            same = dict(value=0.0, interval=None, floor=None)
            assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)


def test_hosts_share_the_shards_and_change_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: None)
    made = {}
    for hosts in (1, 2, 3):
        spans = []

        def make(start, stop, spans=spans):
            spans.append((start, stop))
            return {"a": np.arange(start, stop)}

        monkeypatch.setattr(jax, "process_count", lambda hosts=hosts: hosts)
        for host in range(hosts):
            monkeypatch.setattr(jax, "process_index", lambda host=host: host)
            store = Store(tmp_path / str(hosts), "x", {}, 10, 3)
            store.fill(make, "items")
            assert ", took" in (line := capsys.readouterr().err.splitlines()[-1])
            assert "(100%)" in line  # of its own part
        assert sorted(spans) == [(0, 3), (3, 6), (6, 9), (9, 10)]  # each once
        made[hosts] = (store.directory.name, store.array("a").tolist())
    assert made[1] == made[2] == made[3]


# --- settings


TASK = Task("prediction", ("fvd",), frames=11, given=5, per_shard=4)
OTHER_FIELDS = dict(
    task="text_to_video",
    metrics=("fid", "fvd"),
    frames=9,
    views=dict(late=(1, 11)),
    given=3,
    samples=2,
    prompt="a video of {}",
    sampler=dict(steps=2),
    frame_step=5,
    resamples=7,
)
OTHER_OPTIONS = dict(
    steps=7,
    choice_temperature=0.25,
    guidance=3.5,
    guidance_schedule="linear",
    negative="a green circle",
    temperature=0.5,
    top_k=5,
    top_p=0.5,
    schedule="linear",
    min_p=0.1,
    order="frames",
    view="begun",
    calibrated=(3, 1),
    guidance_limit=2.0,
    guidance_min_p=0.1,
    guidance_interval=(0.0, 0.5),
    critic=options.Critic(types.SimpleNamespace(), {"w": np.ones(2)}),
    critic_guidance=1.5,
    critic_noise=0.5,
    student=options.Student(types.SimpleNamespace(), {"w": np.ones(2)}),
)
NETWORK = extractors.Extractor("i3d", "0" * 16, True, "none", "[0, 1]", lambda video: {})


def all_settings(model, task=TASK, clips=None, network=NETWORK, seed=0):
    clips = clips or ShapesClips(WORLD, "test", 4)
    of_real = protocol.real_settings(task, model, clips, {"i3d": network})
    return of_real | protocol.fake_settings(task, model, seed) | dict(resamples=task.resamples)


def differ(one, other):
    json.dumps([one, other])
    return settings.digest(one) != settings.digest(other)


def test_every_field_of_a_task_has_another_value_here():
    # Scores do not depend on how many clips are stored together.
    fields = {field.name for field in dataclasses.fields(Task)} - {"per_shard"}
    assert set(OTHER_FIELDS) == fields
    assert set(OTHER_OPTIONS) == set(options.NAMES) - {"trace"}


@pytest.mark.parametrize("name", OTHER_FIELDS)
def test_a_changed_field_of_a_task_changes_the_settings(name):
    other = dataclasses.replace(TASK, **{name: OTHER_FIELDS[name]})
    assert differ(all_settings(tiny.phenaki()), all_settings(tiny.phenaki(), other))


@pytest.mark.parametrize("name", OTHER_OPTIONS)
def test_a_changed_sampling_option_changes_the_settings(name):
    model, own = tiny.phenaki(), all_settings(tiny.phenaki())
    given = dataclasses.replace(TASK, sampler={name: OTHER_OPTIONS[name]})
    assert differ(own, all_settings(model, given))
    if name not in ("critic", "student"):  # the model's own option, which a task leaves as it is
        config = tiny.whole_config(sample={name: OTHER_OPTIONS[name]})
        assert differ(own, all_settings(Phenaki(config, model.params)))


def test_an_option_that_is_given_as_the_models_own_changes_nothing():
    steps = dict(steps=tiny.phenaki().defaults.sample["steps"])
    assert not differ(
        all_settings(tiny.phenaki()),
        all_settings(tiny.phenaki(), dataclasses.replace(TASK, sampler=steps)),
    )


@pytest.mark.parametrize(
    "section, fields",
    (
        ("text", dict(length=40)),
        ("text", dict(relpos_far=3.0)),
        ("model", dict(heads=1)),
        ("sample", dict(context=3)),
        (None, dict(dtype="bfloat16")),
        (None, dict(attention="xla")),
    ),
)
def test_a_changed_network_with_equal_parameters_changes_the_settings(section, fields):
    config = tiny.whole_config()
    (config if section is None else config[section]).update(fields)
    model = tiny.phenaki()
    assert differ(all_settings(model), all_settings(Phenaki(config, model.params)))


def test_a_changed_vocabulary_changes_the_settings(monkeypatch, tmp_path):
    found = []
    for content in (b"one", b"two"):
        (tmp_path / "names.txt").write_bytes(content)
        model = tiny.phenaki()
        changed = dataclasses.replace(model.settings, vocabulary=f"labels:{tmp_path}/names.txt")
        monkeypatch.setattr(model, "settings", changed)
        found.append(settings.of_model(model))
        monkeypatch.undo()
    assert differ(*found)


@pytest.mark.parametrize("name", ("checksum", "trained", "resize", "value_range"))
def test_a_changed_feature_network_changes_the_settings(name):
    other = dataclasses.replace(NETWORK, **{name: False if name == "trained" else "another"})
    model = tiny.phenaki()
    assert differ(all_settings(model), all_settings(model, network=other))


def test_a_changed_seed_world_or_parameter_changes_the_settings():
    model = tiny.phenaki()
    own = all_settings(model)
    assert differ(own, all_settings(model, seed=1))
    other = dataclasses.replace(WORLD, seed=1)
    assert differ(own, all_settings(model, clips=ShapesClips(other, "test", 4)))
    assert differ(own, all_settings(model, clips=ShapesClips(WORLD, "held_out", 4)))
    half = jax.tree.map(lambda x: x / 2, model.params)
    assert differ(own, all_settings(Phenaki(model.config, half)))


@pytest.mark.parametrize(
    "target, name, value",
    (
        (jax, "__version__", "0.0"),
        (np, "__version__", "0.0"),
        (settings, "__version__", "0.0"),
        (settings, "SCHEMA", 1),
        (jax, "default_backend", lambda: "tpu"),
    ),
)
def test_other_software_changes_the_settings(monkeypatch, target, name, value):
    own = settings.environment()
    monkeypatch.setattr(target, name, value)
    assert differ(own, settings.environment())


def test_features_of_other_settings_are_not_read(tmp_path, model, clips, monkeypatch):
    """Such as those of an earlier version, which had the clips in the stored order."""
    task = Task("text_to_video", ("inception_score",), frames=11, per_shard=8)
    task = dataclasses.replace(task, sampler=dict(steps=1))
    protocol.evaluate(task, model, clips, tmp_path, extractors.RANDOM, 0)
    before = set(tmp_path.glob("*/*.npz"))
    monkeypatch.setattr(settings, "SCHEMA", 1)
    protocol.evaluate(task, model, clips, tmp_path, extractors.RANDOM, 0)
    assert len(set(tmp_path.glob("*/*.npz")) - before) == len(before) == 2


def test_a_record_has_all_settings_and_how_many_clips_were_used(tmp_path, model, clips):
    task = Task("text_to_video", ("inception_score",), frames=11, sampler=dict(steps=1))
    (score,) = protocol.evaluate(task, model, clips, tmp_path, extractors.RANDOM, 2)
    known = score.settings
    assert known["used"] == COUNT
    assert known["environment"]["jax"] == jax.__version__
    assert known["model"]["fingerprint"] == model.fingerprint
    assert known["model"]["networks"]["maskgit"]["dtype"] == "float32"
    assert known["model"]["networks"]["maskgit"]["attention"] == model.config.attention
    assert known["clips"] == settings.plain(clips.identity)
    assert set(score.sampler) == set(options.NAMES) - {"trace", "student"}  # there is none
    assert score.sampler["steps"] == 1
    assert sampler_cell(score.sampler) == "steps 1, choice_temperature 1, guidance 0.5"


def test_records_of_earlier_versions_are_still_read():
    record = json.loads(
        '{"name": "fid", "value": 4.5, "n": 9, "n_real": 9, "frames": 10, "size": [16, 16],'
        ' "fps": 8.0, "seed": 0, "extractor": "inception pool_3", "checksum": "0", "resize": "",'
        ' "value_range": "[-1, 1]", "sampler": {"steps": 12, "choice_temperature": 4.0,'
        ' "guidance": 6.0}, "interval": [4.0, 5.0], "floor": 1.0, "floor_n": 4, "note": ""}'
    )
    pairs = {name: tuple(record[name]) for name in ("size", "interval")}
    score = Score(**record | pairs)
    assert score.settings is None
    assert sampler_cell(score.sampler) == "steps 12, choice_temperature 4, guidance 6"
