"""Token critics: what they see, learn, and belong to (docs/paper.md#token-critic)."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import script_calls
import tiny

from configs import critic as configs
from configs import maskgit
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import load
from phenaki.models.critic import SelfCritic, TokenCritic
from phenaki.models.maskgit import MaskGIT
from phenaki.pipeline import Phenaki
from phenaki.train import critic as training
from phenaki.train import logs, state
from phenaki.types import Text

GRID, LENGTH, CODEBOOK, TEXT_DIM, ROWS = (3, 2, 2), 12, 8, 6, 3
RNG = np.random.default_rng(0)
CODES = RNG.integers(CODEBOOK, size=(ROWS, LENGTH)).astype(np.int32)
TEXT = Text(
    jnp.asarray(RNG.normal(size=(ROWS, 4, TEXT_DIM)), jnp.float32),
    jnp.arange(4) < jnp.asarray([[4], [2], [0]]),  # the last has no caption
)
SIZES = dict(
    grid=GRID, codebook=CODEBOOK, width=16, depth=1, heads=2, mlp_dim=16, text_dim=TEXT_DIM,
    dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
CRITICS = {
    "network": TokenCritic(**SIZES),
    "head": SelfCritic(MaskGIT(**SIZES), width=16),
}


@pytest.fixture(scope="module", params=CRITICS)
def judge(request):
    """codes, text -> logits of one kind of critic with random parameters."""
    critic = CRITICS[request.param]
    params = tiny.random_params(critic, jnp.asarray(CODES), TEXT)
    return jax.jit(lambda tokens, text: critic.apply({"params": params}, tokens, text))


# --- the networks


def test_every_code_is_judged_by_all_codes_the_given_ones_too(judge):
    before = judge(CODES, TEXT)
    assert (before.shape, before.dtype) == (CODES.shape, jnp.float32)
    for place in (0, LENGTH - 1):  # of a given prefix, and of what follows it
        other = CODES.copy()
        other[:, place] = (other[:, place] + 1) % CODEBOOK
        assert (judge(other, TEXT) != before).all()


def test_a_critic_sees_the_caption_and_nothing_without_one(judge):
    before = judge(CODES, TEXT)
    other = judge(CODES, TEXT.replace(embeddings=TEXT.embeddings + 1))
    np.testing.assert_array_equal((before != other).all(-1), [True, True, False])


def test_text_may_be_left_out():
    critic = CRITICS["network"].clone(text_dim=None)
    params = tiny.random_params(critic, jnp.asarray(CODES))
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert not any("text" in name or "cross" in name for name in names)
    assert critic.apply({"params": params}, jnp.asarray(CODES)).shape == CODES.shape
    assert not critic.reads_text
    assert CRITICS["network"].reads_text


# --- the step


class Generator:
    """Samples token 0 or 1, four to one, whatever the input; records its text."""

    mask_id = CODEBOOK

    def __init__(self):
        self.texts = []

    def apply(self, variables, tokens, text):
        if text is not None:
            jax.debug.callback(lambda mask: self.texts.append(np.asarray(mask)), text.mask)
        odds = jnp.log(jnp.asarray([0.8, 0.2] + [1e-9] * (CODEBOOK - 2)))
        return jnp.broadcast_to(odds, (*tokens.shape, CODEBOOK)) + variables["params"]["shift"]


class Judge:
    """A logit per token and position; records its inputs."""

    reads_text = True

    def __init__(self):
        self.shown, self.texts = [], []

    def merge_params(self, params, generator):
        del generator
        return params

    def apply(self, variables, tokens, text, *, deterministic, rngs):
        del deterministic, rngs
        logits = jnp.take(variables["params"]["kernel"], tokens)
        jax.debug.callback(lambda *seen: self.shown.append(jax.device_get(seen)), tokens, logits)
        if text is not None:
            jax.debug.callback(lambda mask: self.texts.append(np.asarray(mask)), text.mask)
        return logits


def one_step(truth, text=None, drop_text=0.0, prefix=0.0, label=training.was_masked, rows=64):
    """(codes shown, logits, metrics, generator, judge, state after) of one step."""
    generator, judge = Generator(), Judge()
    step = training.CriticStep(
        judge, generator, optax.sgd(1.0),
        encode=lambda frozen, part: part["tokens"],
        embed=None if text is None else lambda frozen, part: text,
        per_frame=GRID[1] * GRID[2], drop_text=drop_text, prefix=prefix, ema=0.9, accumulate=1,
        label=label,
    )  # fmt: skip
    kernel = jnp.linspace(-2, 3, CODEBOOK)
    frozen = {"maskgit": {"shift": jnp.zeros(())}}
    batch = {"video": {"tokens": np.full((rows, *GRID), truth, np.int32)}}
    current = state.create({"kernel": kernel}, optax.sgd(1.0))
    after, metrics = jax.device_get(jax.jit(step)(current, frozen, batch, jax.random.key(0)))
    jax.effects_barrier()
    ((tokens, logits),) = judge.shown
    return np.asarray(tokens), np.asarray(logits, np.float64), metrics, generator, judge, after


def cross_entropy(logits, fake):
    return np.log1p(np.exp(np.where(fake, -logits, logits)))


def test_visible_codes_are_the_datas_and_masked_ones_are_sampled_at_temperature_one():
    # The generator never samples 5: any other token was masked.
    tokens, logits, metrics, *_ = one_step(truth=5, rows=512)
    fake = tokens != 5
    assert 0 < fake.sum(-1).min() < fake.sum(-1).max() == LENGTH
    assert set(np.unique(tokens[fake])) == {0, 1}
    assert abs((tokens[fake] == 0).mean() - 0.8) < 0.03  # not the likeliest only
    expected = cross_entropy(logits, fake).mean()
    np.testing.assert_allclose(metrics["video/loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["video/fake"], fake.mean(), rtol=1e-5)
    for name, of in (("fake", fake), ("real", ~fake)):
        right, count = metrics[f"video/accuracy/{name}"]
        assert count == of.sum()
        assert right == (((logits > 0) == fake) & of).sum()


def test_a_right_guess_is_sampled_by_one_label_and_real_by_the_other():
    # The generator often samples the true token, 0: token 0 may have been masked or not.
    tokens, logits, strict, *_ = one_step(truth=0)
    again, _, lenient, *_ = one_step(truth=0, label=training.differs)
    np.testing.assert_array_equal(tokens, again)
    assert lenient["video/fake"] == pytest.approx((tokens != 0).mean(), rel=1e-5)
    assert strict["video/fake"] > 2 * lenient["video/fake"]
    np.testing.assert_allclose(
        lenient["video/loss"], cross_entropy(logits, tokens != 0).mean(), rtol=1e-5
    )


def test_given_frames_are_seen_never_masked_and_not_counted():
    tokens, logits, metrics, *_ = one_step(truth=5, prefix=1.0, rows=256)
    shown = (tokens == 5).reshape(-1, GRID[0], GRID[1] * GRID[2])
    assert shown[:, 0].all()  # one frame at least
    assert (~shown[:, 1:]).any((0, 2)).all()
    # Rows with one and with two given frames: what is counted is what follows them.
    total = metrics["video/accuracy/real"].count + metrics["video/accuracy/fake"].count
    assert 256 * 4 < total < 256 * 8
    assert total % 4 == 0


def test_only_the_critics_text_is_dropped_and_only_the_critic_learns():
    text = jax.tree.map(lambda x: jnp.tile(x[:1], (64,) + (1,) * (x.ndim - 1)), TEXT)
    *_, generator, judge, after = one_step(truth=5, text=text, drop_text=1.0)
    assert generator.texts[0].all()
    assert not judge.texts[0].any()
    assert after.params.keys() == {"kernel"}
    assert np.any(after.params["kernel"] != np.linspace(-2, 3, CODEBOOK, dtype=np.float32))
    share = np.mean(~one_step(truth=5, text=text, drop_text=0.3)[4].texts[0].any(-1))
    assert 0.1 < share < 0.5


# --- trained next to a whole model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("generator")
    tiny.phenaki().save(path)
    return path


def config(**fields):
    made = configs.get_config("demo")
    made.critic.update(depth=1, width=16, mlp_dim=16, heads=2)
    made.optim.update(warmup=2, decay=50)
    made.data.batch = 8
    made.train.update(steps=4, log_every=1, save_every=2, sample_every=100, sample_count=0)
    made.unroll = 1
    for section, values in fields.items():
        made[section].update(values)
    return made


ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def run(bundle, tmp_path_factory):
    """(workdir, final state) of four steps."""
    workdir = tmp_path_factory.mktemp("critic")
    return workdir, training.train(config(), bundle, workdir, ONE)


def lines(workdir):
    return [{k: v for k, v in line.items() if "second" not in k} for line in logs.read(workdir)]


def test_a_resumed_critic_equals_an_uninterrupted_one(run, bundle, tmp_path):
    workdir, whole = run
    training.train(config(train={"steps": 2}), bundle, tmp_path, ONE)
    resumed = training.train(config(), bundle, tmp_path, ONE)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    assert lines(workdir) == lines(tmp_path)
    assert {"video/loss", "video/accuracy/real", "video/accuracy/fake"} < lines(workdir)[-1].keys()


def codes_of(model, seed=0, **options):
    sample = model.sample(["a red circle moves left", None], seed=seed, **options)
    return sample.tokens.reshape(2, -1)


def test_a_critic_chooses_while_sampling(run):
    model = tiny.phenaki()
    critic = model.load_critic(run[0])
    plain, chosen = codes_of(model), codes_of(model, critic=critic)
    assert np.any(plain != chosen)
    np.testing.assert_array_equal(chosen, codes_of(model, critic=critic))
    compiled = model._sample_tokens._cache_size()
    # Its noise is not the choice temperature, which it does not have.
    hot = codes_of(model, critic=critic, choice_temperature=9.0)
    np.testing.assert_array_equal(chosen, hot)
    assert np.any(chosen != codes_of(model, critic=critic, critic_noise=50.0))
    assert model._sample_tokens._cache_size() == compiled
    # Guidance of the critic's own logits, off by default, moves what it chooses.
    whole = codes_of(model, critic=critic, critic_noise=0.0)
    assert np.any(whole != codes_of(model, critic=critic, critic_noise=0.0, critic_guidance=300.0))
    image = np.zeros((2, 1, 16, 16, 3), np.float32)
    sample = model.sample(["a", "b"], seed=0, video=image, critic=critic, trace=True)
    known = model.encode(image).reshape(2, -1)
    np.testing.assert_array_equal(sample.trace.tokens[:, :4], known)
    assert (sample.trace.history[:, :, :4] == known).all()


def test_a_critic_travels(run, tmp_path):
    script_calls.call("push.py", f"--model={run[0]}", f"--output={tmp_path / 'shared'}")
    script_calls.call("pull.py", f"--model={tmp_path / 'shared'}", f"--output={tmp_path / 'copy'}")
    assert [x.name for x in (tmp_path / "copy").glob("*.safetensors")] == ["critic.safetensors"]
    assert f'load_critic("{tmp_path}/shared")' in (tmp_path / "copy/README.md").read_text()
    model = tiny.phenaki()
    here, there = (model.load_critic(place) for place in (run[0], tmp_path / "copy"))
    assert here.fingerprint == there.fingerprint
    jax.tree.map(np.testing.assert_array_equal, here.params, there.params)


def test_the_score_is_the_critics_logit_of_what_was_filled_in(run):
    model = tiny.phenaki()
    critic = model.load_critic(run[0])
    prompts = ["a red circle moves left", None]
    trace = model.sample(prompts, seed=0, critic=critic, critic_noise=0.0, trace=True).trace
    text = model.embed(prompts)
    judge = functools.partial(critic.network.apply, {"params": critic.params})
    for sampled, scores in zip(trace.sampled, trace.scores, strict=True):
        np.testing.assert_allclose(-judge(jnp.asarray(sampled), text), scores, atol=1e-4)


def test_a_head_on_the_generator_keeps_no_copy_of_it(bundle, tmp_path):
    made = config(critic={"kind": "head"}, train={"steps": 2})
    training.train(made, bundle, tmp_path, ONE)
    params, _ = checkpoint.load_critic(tmp_path)
    assert params.keys() == {"hidden", "hidden_norm", "logit"}
    model = tiny.phenaki()
    critic = model.load_critic(tmp_path)
    assert np.any(codes_of(model, critic=critic) != codes_of(model))


@pytest.mark.parametrize("variant", ["t2v", "demo", "laptop"])
def test_the_mesh_of_a_critic_has_the_axes_of_its_generators(variant):
    """A field that a config lacks cannot be set on the command line."""
    assert set(configs.get_config(variant).mesh) == set(maskgit.get_config("t2v").mesh)


def test_of_a_run_that_is_not_at_its_end_the_critic_says_so(run, bundle, caplog):
    """Its next step has another generator, and the checkpoint of this one will be gone."""
    workdir = run[0]
    load.warn_unfinished(workdir, checkpoint.load_config(workdir).to_dict(), "critic")
    load.warn_unfinished(bundle, Phenaki.load(bundle).config.to_dict(), "critic")
    assert not caplog.records  # at its end; and a bundle stays as it is
    load.warn_unfinished(workdir, {"train": {"steps": 9}}, "critic")
    assert f"{workdir}: is at step 4 of 9; its critic will not work with later" in caplog.text


def test_a_critic_is_of_one_generator(run, bundle, tmp_path):
    model = tiny.phenaki()
    maskgit = {**model.params["maskgit"], "head_bias": model.params["maskgit"]["head_bias"] + 1}
    other = Phenaki(model.config, {**model.params, "maskgit": maskgit})
    stored = json.loads((run[0] / "config.json").read_text())["generator"]
    assert stored == model.generator != other.generator
    with pytest.raises(UserError, match=rf"is a critic of generator {stored}, but this one is \w+"):
        other.load_critic(run[0])
    with pytest.raises(UserError, match="A run has another generator after every step"):
        other.load_critic(run[0])
    other.save(tmp_path)
    with pytest.raises(UserError, match=r"holds a run with another config\.generator "):
        training.train(config(), tmp_path, run[0], ONE)
    with pytest.raises(UserError, match=r"is a critic's run; give the run of its generator"):
        Phenaki.load(run[0])


def test_what_is_not_a_critic_is_named(tmp_path):
    with pytest.raises(UserError, match=r"critic\.py:big: no such variant; known: t2v, demo"):
        configs.get_config("big")
    (tmp_path / "config.json").write_text(json.dumps(tiny.whole_config().to_dict()))
    with pytest.raises(UserError, match=r"has no checkpoint yet"):
        checkpoint.load_critic(tmp_path)


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_every_variant_is_for_a_generator(variant):
    made = configs.get_config(variant)
    assert made.critic.width % made.critic.heads == 0
    assert (made.labels, made.drop_text, made.mask.schedule) == ("masked", 0.1, "cosine")
    generator = made.data.batch + made.data.image_batch
    assert generator == {"t2v": 512}.get(variant, 32)
