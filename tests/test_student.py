"""Students: z decides the clip, and what they learn from (docs/sampling.md#student)."""

import gc
import re
import shutil
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import script_calls
import tiny

from phenaki import sharding
from phenaki.data import batches
from phenaki.data.shapes.world import World
from phenaki.errors import UserError
from phenaki.evaluation import alignment
from phenaki.losses import masked_tokens
from phenaki.models.student import from_teacher, of_teacher
from phenaki.pipeline import Phenaki
from phenaki.sampling import options, sampler, seeds
from phenaki.train import inputs, pairs
from phenaki.train import student as training

PROMPTS = ["a red circle moves left", "a blue square moves up"]
LATENT, HIDDEN = 3, 8


@pytest.fixture(scope="module")
def network():
    return of_teacher(tiny.phenaki().network, LATENT, HIDDEN)


@pytest.fixture(scope="module")
def params(network):
    """Those of a student that knows what its teacher does, and nothing else."""
    model = tiny.phenaki()
    text = model.settings.text_length, model.config.text.width
    example = inputs.example(model.spec.tokens(), text)
    return from_teacher(network, model.params["maskgit"], jax.random.key(0), *example)


@pytest.fixture(scope="module")
def student(network, params):
    """One to whom z matters."""
    shape = params["latent_out"]["kernel"].shape
    kernel = 0.1 * jax.random.normal(jax.random.key(1), shape)
    return options.Student(
        network, params | {"latent_out": {**params["latent_out"], "kernel": kernel}}
    )


def half_masked(model, rows):
    tokens = np.random.default_rng(0).integers(32, size=(rows, model.spec.tokens()))
    tokens[:, ::2] = model.network.mask_id
    return jnp.asarray(tokens)


def logits(network, params, latent):
    model = tiny.phenaki()
    apply = jax.jit(lambda z: network.apply(
        {"params": params}, half_masked(model, 2), model.embed(PROMPTS), latent=z, method="draw"
    ))  # fmt: skip
    return np.asarray(apply(jnp.asarray(latent, jnp.float32)))


def test_a_student_starts_as_its_teacher_whatever_z_is(network, params):
    model = tiny.phenaki()
    own = jax.jit(model.network.apply)(  # compiled, as the student's: other sums round otherwise
        {"params": model.params["maskgit"]}, half_masked(model, 2), model.embed(PROMPTS)
    )
    for z in (np.zeros((2, LATENT)), np.full((2, LATENT), 3.0)):
        np.testing.assert_allclose(logits(network, params, z), own, atol=1e-5)


def test_z_tells_every_masked_token_of_its_own_row(network, student):
    z = np.zeros((2, LATENT))
    before, z[1, 0] = logits(network, student.params, z), 1.0
    after = logits(network, student.params, z)
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any(-1).all()


def test_one_pass_draws_a_clip_that_the_seed_decides(student):
    model = tiny.phenaki()
    one = model.sample(PROMPTS, seed=0, student=student)
    assert one.passes == 1
    np.testing.assert_array_equal(one.tokens, model.sample(PROMPTS, seed=0, student=student).tokens)
    assert (one.tokens != model.sample(PROMPTS, seed=1, student=student).tokens).any()
    last = model.sample(PROMPTS[1:], seed=0, first_row=1, student=student)
    np.testing.assert_array_equal(one.tokens[1:], last.tokens)  # a row's own z
    two = model.sample(PROMPTS, seed=0, student=student, steps=2)
    assert two.passes == 2
    frames = two.tokens[:, 2:4] == one.tokens[:, 2:4]  # the first of order=middle
    assert frames.all()


def test_the_likeliest_tokens_of_both_passes_are_the_students(student):
    model = tiny.phenaki()
    trace = model.sample(PROMPTS, seed=3, student=student, steps=2, trace=True).trace
    z = seeds.latents(sampler.row_keys(3, 2), LATENT)
    text, masks = model.embed(PROMPTS), jnp.full((2, model.spec.tokens()), model.network.mask_id)
    for before, sampled in zip((masks, trace.history[0]), trace.sampled, strict=True):
        given = {"params": student.params}
        found = student.network.apply(
            given, jnp.asarray(before), text, latent=z, method="draw"
        ).argmax(-1)
        unknown = np.asarray(before) == model.network.mask_id
        np.testing.assert_array_equal(np.asarray(found)[unknown], np.asarray(sampled)[unknown])


def test_later_windows_follow_what_is_given(student):
    model = tiny.phenaki()
    video = np.random.default_rng(0).random((2, model.context, 16, 16, 3)).astype(np.float32)
    sample = model.sample(PROMPTS, seed=0, video=video, student=student)
    known = model.encode(video)
    np.testing.assert_array_equal(sample.tokens[:, : known.shape[1]], known)
    chosen = options.resolve(model.defaults, student=student, continues=True)
    assert (chosen.order, chosen.steps) == ("frames", 1)


def test_a_mesh_draws_what_one_device_does(student):
    model = tiny.phenaki()
    spread = Phenaki(model.config, model.params)
    spread.shard(sharding.make_mesh(data=2, fsdp=2, sequence=1, tensor=2))
    one, eight = (
        each.sample(2 * PROMPTS, seed=3, student=student, steps=2) for each in (model, spread)
    )
    np.testing.assert_array_equal(one.tokens, eight.tokens)


# --- what it learns from


def test_coupling_is_a_permutation_that_joins_what_is_near():
    random = np.random.default_rng(0)
    latents = pairs.normal_points(64, 2, random)
    assert len(np.unique(latents, axis=0)) == 64
    np.testing.assert_allclose(latents.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(latents.std(0), 1, atol=0.15)
    points = random.permutation(latents) + 0.01  # the same points, moved a little
    coupled = pairs.couple(points, latents)
    np.testing.assert_array_equal(np.unique(coupled, axis=0), np.unique(latents, axis=0))
    np.testing.assert_allclose(coupled, points, atol=0.011)


def test_principal_numbers_are_what_clips_of_a_prompt_differ_in():
    random = np.random.default_rng(0)
    hidden = random.normal(size=(3, 200, 1))
    looks = 5 * hidden * np.eye(6)[2] + 0.1 * random.normal(size=(3, 200, 6))
    looks += 100 * random.normal(size=(3, 1, 6))  # prompts differ more than their clips
    found = pairs.principal(looks, 1)
    for own, true in zip(found[..., 0], hidden[..., 0], strict=True):
        assert abs(np.corrcoef(own, true)[0, 1]) > 0.99
    np.testing.assert_allclose(found.std(1), 1, rtol=0.02)
    signs = [
        np.sign(np.corrcoef(*both)[0, 1])
        for both in zip(found[..., 0], hidden[..., 0], strict=True)
    ]
    assert len(set(signs)) == 1  # the same with all prompts


def test_prompts_are_those_of_the_models_training(tmp_path):
    model = tiny.phenaki()
    world = batches.world(model.config)
    seen, held_out = (alignment.prompts_of(world, part).texts for part in world.combinations)
    found = pairs.prompts_of(model, 1000)
    assert found.first == seen
    assert not set(found.first) & set(held_out)
    following = found.after(np.arange(len(seen)).repeat(20), np.random.default_rng(0))
    assert {found.later[index] for index in following} <= {f"then {text}" for text in seen}
    assert (following != np.arange(len(seen)).repeat(20)).mean() > 0.5
    (tmp_path / "prompts.txt").write_text("a cat\n\n a  dog \na cat\n")
    own = pairs.prompts_of(model, 9, str(tmp_path / "prompts.txt"))
    assert own.first == own.later == ["a cat", "a dog"]
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(
        UserError, match=r"prompts\.txt: has no text; give a file with one prompt a line"
    ):
        pairs.prompts_of(model, 9, str(tmp_path / "prompts.txt"))


def test_prompts_tell_of_two_objects_as_often_as_the_models_clips(monkeypatch):
    model, world = tiny.phenaki(), World(size=64, radius=10.0, pair=0.4)
    monkeypatch.setattr(batches, "known_world", lambda model: world)
    seen, _ = world.combinations
    found = pairs.prompts_of(model, 40)
    two = [text for text in found.first if " and a " in text]
    assert (len(found.first), len(two)) == (40, 16)
    assert found.first[24:] == found.later[24:] == two
    assert len(set(found.first)) == 40
    index = np.arange(40).repeat(20)
    following = found.after(index, np.random.default_rng(0))
    np.testing.assert_array_equal(following[24 * 20 :], index[24 * 20 :])
    assert following[: 24 * 20].max() < 24
    # Those of one object that there are, and as many of two as belong to them.
    every = pairs.prompts_of(model, 1000).first
    assert len(every) == int(len(seen) / 0.6)
    assert sum(" and a " in text for text in every) == round(0.4 * len(every))


def test_pairs_are_the_models_own_samples_with_given_frames_first():
    model = tiny.phenaki()
    prompts = pairs.prompts_of(model, 2)
    made = pairs.make(model, prompts, each=4, stories=4, size=LATENT, seed=5)
    own = model.sample([prompts.first[1]] * 4, seed=5, first_row=4).tokens
    np.testing.assert_array_equal(made.tokens[4:8], own.reshape(4, -1))
    assert made.given.tolist() == [0] * 8 + [12] * 8
    assert made.text.tolist()[:8] == [0] * 4 + [1] * 4
    assert set(made.text[8:]) <= {2, 3}
    assert made.latents.shape == (16, LATENT)


def test_the_clips_of_a_prompt_are_freed_before_the_next(monkeypatch):
    model = tiny.phenaki()
    clips, sample = [], model.sample

    def watched(*args, **options):
        gc.collect()
        alive.append(sum(one() is not None for one in clips))
        drawn = sample(*args, **options)
        clips.append(weakref.ref(drawn.video.base if drawn.video.base is not None else drawn.video))
        return drawn

    alive: list[int] = []
    monkeypatch.setattr(model, "sample", watched)
    pairs.make(model, pairs.prompts_of(model, 4), each=4, stories=4, size=LATENT, seed=5)
    assert max(alive[:4]) <= 1  # that of the call before


class Recorder:
    """Logits that are parameters; records the tokens that it is shown."""

    grid, mask_id = (6, 2, 2), 32

    def __init__(self):
        self.shown = []

    def apply(self, variables, tokens, text, *, latent, method):
        jax.debug.callback(lambda shown: self.shown.append(np.asarray(shown)), tokens)
        return jnp.broadcast_to(variables["params"]["bias"], (*tokens.shape, self.mask_id))


def test_a_step_shows_what_is_given_and_kept_and_learns_the_rest():
    network, optimizer = Recorder(), optax.sgd(10.0)
    step = training.make_step(network, optimizer)
    batch = dict(
        tokens=np.full((4, 24), 7), latents=np.zeros((4, LATENT), np.float32),
        given=np.array([0, 0, 12, 12]), kept=np.array([0, 8, 0, 4]),
    )  # fmt: skip
    params = {"bias": jnp.zeros(32)}
    params, state, before, right = step(params, optimizer.init(params), batch, None)
    _, _, after, now = step(params, state, batch, None)
    jax.effects_barrier()
    visible = network.shown[0] == 7
    assert visible.sum(1).tolist() == [0, 8, 12, 16]
    assert visible[1].reshape(6, 4)[2:4].all()  # order=middle
    assert visible[2, :12].all() and visible[3, :16].all()  # order=frames
    assert float(before) == pytest.approx(np.log(32), rel=1e-4)
    assert after < before
    assert (float(right), float(now)) == (0.0, 1.0)


# --- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the model's bundle, the student's) of the command."""
    folder = tmp_path_factory.mktemp("student")
    tiny.phenaki().save(folder / "model")
    script_calls.call(
        "train_student.py", f"--model={folder / 'model'}", f"--output={folder / 'student'}",
        "--max_prompts=2", "--samples=4", "--stories=4", "--steps=4", "--batch=4",
    )  # fmt: skip
    return folder / "model", folder / "student"


def test_the_command_makes_a_student_that_draws(trained, tmp_path):
    model = Phenaki.load(trained[0])
    student = model.load_student(trained[1])
    assert len(student.fingerprint) == 16
    assert np.any(np.asarray(student.params["latent_out"]["kernel"]))
    script_calls.call(
        "sample.py", f"--model={trained[0]}", f"--student={trained[1]}", "--steps=2",
        f"--output={tmp_path / 'out'}", f"--prompt={PROMPTS[0]}",
    )  # fmt: skip
    made = (tmp_path / "out/sample_0.json").read_text()
    assert student.fingerprint in made


def test_the_pages_python_draws_with_a_student(trained, tmp_path, monkeypatch):
    page = Path(__file__).parents[1] / "docs/sampling.md"
    _, block = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    shutil.copytree(trained[1], tmp_path / "runs/student")
    monkeypatch.chdir(tmp_path)
    known = {"model": Phenaki.load(trained[0])}
    exec(compile(block, page.name, "exec"), known)
    assert known["videos"].shape == (1, 11, 16, 16, 3)


def test_a_student_travels(trained, tmp_path):
    script_calls.call("export.py", f"--model={trained[1]}", f"--output={tmp_path / 'copy'}")
    script_calls.call("push.py", f"--model={trained[1]}", f"--output={tmp_path / 'shared'}")
    assert f'load_student("{tmp_path}/shared")' in (tmp_path / "shared/README.md").read_text()
    model = Phenaki.load(trained[0])
    places = (trained[1], tmp_path / "copy", tmp_path / "shared")
    assert len({model.load_student(place).fingerprint for place in places}) == 1


def test_a_student_is_of_one_model(trained, tmp_path):
    model = tiny.phenaki()
    maskgit = {**model.params["maskgit"], "head_bias": model.params["maskgit"]["head_bias"] + 1}
    other = Phenaki(model.config, {**model.params, "maskgit": maskgit})
    with pytest.raises(
        UserError, match=rf"is a student of generator {model.generator}, but this one"
    ):
        other.load_student(trained[1])
    with pytest.raises(UserError, match="holds a phenaki, no student; phenaki train-student"):
        model.load_student(trained[0])
    with pytest.raises(UserError, match="holds a student, not a whole model"):
        Phenaki.load(trained[1])
    with pytest.raises(UserError, match="holds no student; phenaki train-student makes one"):
        model.load_student(tmp_path)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"guidance": 1.0}, "student and guidance=1: a student is not guided"),
        ({"negative": "fog"}, "student and negative='fog': a student is not guided"),
        ({"critic": options.Critic(None, {})}, "student and critic: a student's first tokens stay"),
    ],
)
def test_what_does_not_go_with_a_student_is_refused(student, given, line):
    with pytest.raises(UserError, match=line):
        tiny.phenaki().sample(PROMPTS, seed=0, student=student, **given)


def test_what_cannot_be_trained_writes_nothing(trained, tmp_path, monkeypatch):
    def call(*flags):
        few = ("--max_prompts=1", "--samples=2", "--stories=0", "--steps=4", "--batch=2")
        output = f"--output={tmp_path}/out"
        script_calls.call("train_student.py", f"--model={trained[0]}", output, *few, *flags)

    with pytest.raises(UserError, match="--rate=nan"):
        call("--rate=nan")
    with pytest.raises(UserError, match="--batch=3: must be at most the 2 clips that are drawn"):
        call("--batch=3")
    (tmp_path / "prompts.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"prompts.txt: is not a text file in UTF-8"):
        call(f"--prompts={tmp_path}/prompts.txt")
    broken = jnp.full(2, jnp.nan)
    monkeypatch.setattr(masked_tokens, "masked_cross_entropy", lambda *_: (broken, broken))
    with pytest.raises(UserError, match="--rate=2: the loss is nan by step 4; nearest to try is"):
        call("--rate=2")
    assert not list(tmp_path.rglob("bundle.json"))


def test_a_student_replaces_a_student_and_no_model(trained, tmp_path):
    few = ("--max_prompts=1", "--samples=2", "--stories=0", "--steps=2", "--batch=2")
    for number, name in enumerate(("student", "model")):
        shutil.copytree(trained[1 - number], tmp_path / name)
    before = (tmp_path / "model/bundle.json").read_bytes()
    with pytest.raises(UserError, match="model: holds a phenaki, which a student does not replace"):
        script_calls.call(
            "train_student.py", f"--model={trained[0]}", f"--output={tmp_path}/model", *few
        )
    with pytest.raises(UserError, match="holds a phenaki, which a student does not replace"):
        script_calls.call("export.py", f"--model={trained[1]}", f"--output={tmp_path}/model")
    assert (tmp_path / "model/bundle.json").read_bytes() == before
    model = Phenaki.load(trained[0])
    assert model.fingerprint == Phenaki.load(tmp_path / "model").fingerprint
    first = model.load_student(tmp_path / "student").fingerprint
    script_calls.call(
        "train_student.py", f"--model={trained[0]}", f"--output={tmp_path}/student", *few
    )
    assert model.load_student(tmp_path / "student").fingerprint != first
