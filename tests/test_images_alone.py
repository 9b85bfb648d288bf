"""Both stages, the critic, stored tokens and sampling on images alone, without one clip."""

import contextlib

import clip_sets
import jax
import numpy as np
import pytest
import tiny

from configs import critic as critics
from phenaki.data import batches, clips, format, stored_clips
from phenaki.diagnostics import doctor
from phenaki.errors import UserError
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.pipeline import Phenaki
from phenaki.planning import programs
from phenaki.sampling.windows import Scene
from phenaki.train import critic, encode_dataset, health, logs, maskgit, tokenizer
from phenaki.train.health import HealthOptions

ONE = jax.devices()[:1]
IMAGES = 6
ALONE = dict(batch=0, image_batch=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of images only, prepared with the defaults: clips of 11 frames, 8 a second."""
    random = np.random.default_rng(0)
    form = format.ClipFormat(11, 8.0, 20, 18, "png")
    records = []
    for n in range(IMAGES):
        image = format.encode(random.integers(0, 256, (1, 20, 18, 3), np.uint8), "png")
        records.append(format.ClipRecord(f"{n}", image, f"image {n}", "", "", (20, 18), 0.0, 0.0))
    directory = tmp_path_factory.mktemp("data") / "set"
    return clip_sets.write(directory, form, {"image_train": records, "image_validation": records})


def on(data, **fields):
    return dict(data=dict(source="tfds", sources=str(data), **ALONE, **fields))


@pytest.fixture(scope="module")
def stage_1(data, tmp_path_factory):
    """(workdir, state) of a tokenizer of images with every loss that applies to them."""
    workdir = tmp_path_factory.mktemp("runs") / "stage_1"
    config = tiny.tokenizer_config(
        **on(data), loss=dict(adversarial=0.1), gan=dict(width=8), video=dict(frames=1, fps=25.0)
    )
    config.train.update(steps=2)
    tokenizer.train(config, workdir, ONE)
    # Another number of images, another rate: honoured.
    config.data.image_batch, config.optim.rate, config.train.steps = 4, 1e-4, 3
    return workdir, tokenizer.train(config, workdir, ONE)


@pytest.fixture(scope="module")
def codes(data, stage_1, tmp_path_factory):
    output = tmp_path_factory.mktemp("codes") / "set"
    encoder = maskgit.open_encoder(
        tiny.maskgit_config(), stage_1[0], str(data), str(output), batch=8
    )
    encode_dataset.run(encoder, lambda line: None, lambda total: contextlib.nullcontext(Shown()))
    return output


class Shown:
    def update(self, count):
        pass


@pytest.fixture(scope="module")
def stage_2(data, stage_1, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "stage_2"
    config = tiny.maskgit_config(**on(data), train=dict(steps=2))
    maskgit.train(config, stage_1[0], workdir, ONE)
    return workdir


def test_stage_1_trains_logs_and_samples_images(stage_1):
    workdir, state = stage_1
    assert int(state.step) == 3
    assert {path.name for path in (workdir / "samples").iterdir()} == {"0000002.png", "0000003.png"}
    lines = logs.read(workdir)
    assert {"loss/total", "image/psnr/first", "image/gan/accuracy_real"} < set(lines[0])
    assert not any("rest" in name or "video" in name for name in lines[0])


def test_stage_2_trains_on_pixels_or_stored_tokens_alike(stage_1, stage_2, codes, tmp_path):
    config = tiny.maskgit_config(train=dict(steps=2))
    config.data.update(source="codes", sources=str(codes), **ALONE)
    maskgit.train(config, stage_1[0], tmp_path, ONE)
    first, other = (logs.read(workdir)[0] for workdir in (stage_2, tmp_path))
    assert "image/loss" in first and not any(name.startswith("video/") for name in first)
    for name in ("loss/total", "image/accuracy"):
        assert first[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6)
    assert {path.name for path in (stage_2 / "samples").iterdir()} == {"0000002.png"}


def test_the_model_samples_images_and_refuses_what_needs_clips(stage_2):
    model = Phenaki.load(stage_2)
    assert model.generate(["a cat", None], seed=0).shape == (2, 1, 16, 16, 3)
    image, line = np.zeros((1, 16, 16, 3)), r"trained on images \(config\.video\.frames=1\)"
    for call in (
        lambda: model.animate(image, ["a cat"], seed=0),
        lambda: model.extend(image[:, None], ["a cat"], seed=0),
        lambda: model.story([Scene("a cat", 1.0)], seed=0),
    ):
        with pytest.raises(UserError, match=line):
            call()
    with pytest.raises(UserError, match="frames=11 must be .* nearest is 1"):
        model.generate(["a cat"], seed=0, frames=11)


def test_a_critic_of_images_trains(data, stage_2, tmp_path):
    config = critics.get_config("demo")
    config.critic.update(depth=1, width=16, mlp_dim=32)
    config.data.update(ALONE)
    config.train.update(steps=1, log_every=1, save_every=1, sample_every=1)
    config.unroll = 1
    assert int(critic.train(config, stage_2, tmp_path, ONE).step) == 1
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["0000001.png"]


def test_images_train_a_model_of_clips_too(data, tmp_path):
    """Stage 1 on images alone, with the sizes of clips."""
    config = tiny.tokenizer_config(**on(data), train=dict(steps=1))
    tokenizer.train(config, tmp_path, ONE)
    assert batches.sample_frames(config.data, config.video.frames) == 1
    assert batches.first(config, 3)[0]["video"].shape == (3, 1, 16, 16, 3)


@pytest.mark.parametrize(
    "sizes", [ALONE, dict(batch=8, image_batch=0), dict(batch=8, image_batch=8)]
)
def test_a_clip_of_one_frame_is_an_image_of_a_set_without_clips(data, sizes):
    config = tiny.tokenizer_config(**on(data), video=dict(frames=1, fps=25.0))
    config.data.update(sizes)
    with contextlib.closing(batches.make(config, lambda captions: {})) as made:
        batch = next(made)
    assert {kind: part["video"].shape for kind, part in batch.items()} == {
        kind: (8, 1, 16, 16, 3) for kind in batches.sizes_of(config.data)
    }
    spec = clips.ClipSize(1, 20, 18, 25.0)
    assert len(stored_clips.StoredClips(data, "validation", "video", spec)) == IMAGES
    with pytest.raises(UserError, match="has no split video_train; it has image_train"):
        next(
            clips.examples(data, split="train", kind="video", spec=spec._replace(frames=3), seed=0)
        )


@pytest.mark.parametrize(
    "sizes, line",
    [
        (dict(batch=0, image_batch=0), "a step needs clips or images; give .*image_batch=8"),
        (dict(batch=-8, image_batch=8), r"config\.data\.batch=-8 must be 0 or more; nearest is 0"),
    ],
)
def test_no_data_at_all_is_refused(sizes, line, tmp_path):
    config = tiny.tokenizer_config(data=sizes)
    with pytest.raises(UserError, match=line):
        tokenizer.train(config, tmp_path, ONE)
    with pytest.raises(UserError, match=line):
        programs.workload(config)


def test_a_tokenizer_of_images_refuses_clips(stage_1):
    """Its table of positions over time has one row, which would broadcast."""
    model = FrozenTokenizer.load(stage_1[0])
    assert model.reconstruct(np.zeros((2, 1, 16, 16, 3), np.float32))[1].shape == (2, 4)
    with pytest.raises(UserError, match="clips of 11 frames: .* trained on at most 1"):
        model.reconstruct(np.zeros((2, 11, 16, 16, 3), np.float32))


def test_the_doctor_and_the_warnings_read_images(stage_1, stage_2):
    for run in (stage_1[0], stage_2):
        findings = doctor.examine_run(run, steps=0)
        assert len(findings) >= 4
    options = HealthOptions(codebook=32, warmup=1)
    lines = [{"step": step, "image/loss": 9.0, "image/predicted": 1.0} for step in range(30)]
    found = {finding.check: finding.healthy for finding in health.read(lines, options)}
    assert found == {"the loss is below chance": False, "predictions vary": True}
    clips_too = [line | {"video/loss": 1.0} for line in lines]
    assert next(f for f in health.read(clips_too, options) if "chance" in f.check).healthy


def test_a_plan_has_the_work_of_images():
    config = tiny.tokenizer_config(data=ALONE, video=dict(frames=1))
    workload = programs.workload(config)
    assert workload.samples == {"image": 8}
    _, _, batch, _ = workload.train_step().inputs
    assert batch["image"]["video"].shape == (8, 1, 16, 16, 3)
