"""Both stages, the critic, stored tokens and sampling on images alone, without one clip."""

import contextlib

import clip_sets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki.data import batches, clip_records, clips, format, stored_clips
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.pipeline import Phenaki
from phenaki.planning import programs
from phenaki.sampling.windows import Scene
from phenaki.train import encode_dataset, health, inputs, logs, maskgit, tokenizer
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
def stage_1(tmp_path_factory):
    """A tokenizer of images; test_warm_start.py trains one."""
    config = tiny.tokenizer_config(video=dict(frames=1, fps=25.0))
    params = tiny.random_params(factory.tokenizer(config), np.zeros((1, 1, 16, 16, 3), np.float32))
    directory = tmp_path_factory.mktemp("tokenizer")
    checkpoint.save_bundle(directory, {"tokenizer": params}, config.to_dict())
    return directory


@pytest.fixture(scope="module")
def codes(data, stage_1, tmp_path_factory):
    output = tmp_path_factory.mktemp("codes") / "set"
    encoder = maskgit.open_encoder(tiny.maskgit_config(), stage_1, str(data), str(output), batch=8)
    encode_dataset.run(encoder, lambda line: None, lambda total: contextlib.nullcontext(Shown()))
    return output


class Shown:
    def update(self, count):
        pass


@pytest.fixture(scope="module")
def stage_2(codes, stage_1, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "stage_2"
    config = tiny.maskgit_config(train=dict(steps=1))
    config.data.update(source="codes", sources=str(codes), **ALONE)
    maskgit.train(config, stage_1, workdir, ONE)
    return workdir


def test_stage_2_trains_on_stored_tokens_of_images(stage_2):
    (line,) = logs.read(stage_2)
    assert "image/loss" in line and not any(name.startswith("video/") for name in line)
    assert [path.name for path in (stage_2 / "samples").iterdir()] == ["0000001.png"]


def test_stage_2_reads_the_images_whose_tokens_are_stored(data, codes, stage_1):
    params, stage1, digest = checkpoint.load_tokenizer(stage_1)
    config = maskgit.with_tokenizer(tiny.maskgit_config(**on(data)), stage1, digest)
    model = factory.tokenizer(config)
    video, captions = batches.first(config, IMAGES)
    encode = jax.jit(lambda params, x: model.apply({"params": params}, x, method="encode"))
    encoded = encode(params, video["video"].astype(np.float32) / 255)
    config.data.update(source="codes", sources=str(codes))
    stored, same = batches.first(config, IMAGES)
    assert captions == same and set(captions) == {f"image {n}" for n in range(IMAGES)}
    assert stored["tokens"].shape == (IMAGES, 4) and encoded.shape == (IMAGES, 1, 2, 2)


def test_images_of_stage_1_may_be_of_a_set_of_their_own(data, tmp_path):
    form = format.ClipFormat(11, 8.0, 20, 18, "png")
    black = format.encode(np.zeros((11, 20, 18, 3), np.uint8), "png")
    clip = format.ClipRecord("a", black, None, "", "", (20, 18), 0.0, 8.0)
    clip_sets.write(tmp_path / "set", form, {"video_train": [clip], "video_validation": [clip]})
    sources = dict(sources=str(tmp_path / "set"), batch=2, image_batch=3)
    config = tiny.tokenizer_config(data=dict(source="tfds", image_sources=str(data), **sources))
    with contextlib.closing(batches.make(config, inputs.no_captions)) as stream:
        batch = next(iter(stream))
    assert batch["video"]["video"].shape == (2, 11, 16, 16, 3) and not batch["video"]["video"].any()
    assert batch["image"]["video"].shape == (3, 1, 16, 16, 3) and batch["image"]["video"].any()


def test_a_model_of_images_refuses_what_needs_clips():
    model = Phenaki(tiny.whole_config(video=dict(frames=1)), {})
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


def test_a_model_of_clips_learns_from_images_alone_too():
    """With a discriminator; the step is traced, not run."""
    config = tiny.tokenizer_config(data=ALONE, loss=dict(adversarial=0.1), gan=dict(width=8))
    workload = programs.workload(config)
    step = workload.train_step()
    assert workload.samples == {"image": 8}
    assert step.inputs[2]["image"]["video"].shape == (8, 1, 16, 16, 3)
    _, metrics = jax.eval_shape(step.function, *step.inputs)
    assert {"loss/total", "image/gan/accuracy_real", "image/psnr/first"} < set(metrics)
    assert not any("rest" in name for name in metrics)
    assert batches.sample_frames(config.data, 11) == 1
    assert batches.first(config, 3)[0]["video"].shape == (3, 1, 16, 16, 3)


@pytest.mark.parametrize(
    "sizes", [ALONE, dict(batch=8, image_batch=0), dict(batch=8, image_batch=8)]
)
def test_a_clip_of_one_frame_is_an_image_of_a_set_without_clips(data, sizes):
    config = tiny.tokenizer_config(**on(data), video=dict(frames=1, fps=25.0))
    config.data.update(sizes)
    with contextlib.closing(batches.make(config, lambda captions: {})) as made:
        batch = next(made)
    shapes = {kind: part["video"].shape for kind, part in batch.items()}
    assert shapes == dict.fromkeys(batches.sizes_of(config.data), (8, 1, 16, 16, 3))
    spec = clip_records.ClipSize(1, 20, 18, 25.0)
    assert len(stored_clips.StoredClips(data, "validation", "video", spec)) == IMAGES
    with pytest.raises(UserError, match="has no split video_train; it has image_train"):
        next(
            clips.examples(data, split="train", kind="video", spec=spec._replace(frames=3), seed=0)
        )


@pytest.mark.parametrize(
    "sizes, line",
    [
        (dict(batch=0, image_batch=0), "a step needs clips or images; give .*image_batch=8"),
        (dict(batch=-8, image_batch=8), r"config\.data\.batch=-8 must be at least 0"),
    ],
)
def test_no_data_at_all_is_refused(sizes, line, tmp_path):
    config = tiny.tokenizer_config(data=sizes)
    with pytest.raises(UserError, match=line):
        tokenizer.train(config, tmp_path, ONE)
    with pytest.raises(UserError, match=line):
        programs.workload(config)


@pytest.mark.parametrize("frames, given", [(1, 3), (3, 5)])
def test_a_tokenizer_refuses_clips_longer_than_its_own(frames, given):
    model = factory.tokenizer(tiny.tokenizer_config(video=dict(frames=frames)))
    clip = jnp.zeros((1, given, 16, 16, 3))
    with pytest.raises(UserError, match=f"clips of {given} frames: .* trained on at most {frames}"):
        jax.eval_shape(model.init, jax.random.key(0), clip)


def test_warnings_read_the_metrics_of_images():
    options = HealthOptions(codebook=32, warmup=1)
    lines = [{"step": step, "image/loss": 9.0, "image/predicted": 1.0} for step in range(30)]
    found = {finding.check: finding.healthy for finding in health.read(lines, options)}
    assert found == {"the loss is below chance": False, "predictions vary": True}
    clips_too = [line | {"video/loss": 1.0} for line in lines]
    assert next(f for f in health.read(clips_too, options) if "chance" in f.check).healthy


def test_a_set_of_clips_alone_names_the_field_of_images(tmp_path):
    advice = (
        r"it has video_train; give .* config\.data\.image_sources, or config\.data\.image_batch=0"
    )
    with pytest.raises(UserError, match=advice):
        raise format.no_split(tmp_path, "image_train", ["video_train"])
    assert "image_batch" not in str(format.no_split(tmp_path, "video_train", ["image_train"]))
