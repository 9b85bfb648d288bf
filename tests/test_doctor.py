"""The doctor and the live warnings: they name what is broken on purpose, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from absl import logging

from phenaki import build, doctor, signs
from phenaki.tokenizers import cvivit
from phenaki.train import stages
from phenaki.train.watch import Watch

CONFIG = tiny.tokenizer_config()
STAGE2 = tiny.whole_config()


def by_name(findings):
    return {finding.check: finding for finding in findings}


# --- what the log says


@pytest.mark.parametrize(
    ("config", "logged", "check", "healthy"),
    [
        (CONFIG, {"codebook/usage": 0.01}, "the codebook is used", False),
        (CONFIG, {"codebook/usage": 0.4}, "the codebook is used", True),
        (
            CONFIG,
            {"gan/accuracy_real": 0.99, "gan/accuracy_fake": 0.98},
            "the discriminator can be fooled",
            False,
        ),
        (
            CONFIG,
            {"gan/accuracy_real": 0.99, "gan/accuracy_fake": 0.7},
            "the discriminator can be fooled",
            True,
        ),
        (STAGE2, {"video/loss": np.log(32) - 0.01}, "the loss is below chance", False),
        (STAGE2, {"video/loss": 2.0}, "the loss is below chance", True),
        (STAGE2, {"video/predicted": 0.005}, "predictions vary", False),
        (STAGE2, {"video/predicted": 0.2}, "predictions vary", True),
        (STAGE2, {"video/unconditional": 0.0}, "guidance is trained", False),
        (STAGE2, {"video/unconditional": 0.1}, "guidance is trained", True),
    ],
)
def test_what_the_log_says(config, logged, check, healthy):
    lines = [{"step": 1000 + i, **logged} for i in range(signs.RECENT)]
    assert by_name(signs.read(lines, config))[check].healthy is healthy
    assert signs.read(lines[1:], config) == []  # too few to tell
    assert by_name(signs.read(lines[-1:], config, least=1))[check].healthy is healthy


def test_what_comes_before_the_first_window_or_the_end_of_the_warmup_says_nothing():
    lines = [{"step": 1, "codebook/usage": 0.0}] * signs.RECENT
    assert signs.read(lines, CONFIG) == []
    lines = [{"step": 2, "video/loss": 99.0}] * signs.RECENT
    assert signs.read(lines, STAGE2) == []


def test_a_run_warns_once_while_it_is_ill(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    watch = Watch(CONFIG)
    for step in range(100, 150):
        watch.look(step, {"codebook/usage": 0.01})
    assert len(said) == 1
    assert "step 119" in said[0]
    assert "revive_until" in said[0]
    for step in range(150, 200):
        watch.look(step, {"codebook/usage": 0.9})
    for step in range(200, 250):
        watch.look(step, {"codebook/usage": 0.01})
    assert len(said) == 2


# --- stage 1


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(build.tokenizer(CONFIG), jnp.zeros((1, 11, 16, 16, 3)))


def test_causality_is_of_the_network_itself(params, monkeypatch):
    found = by_name(doctor.examine_tokenizer(params, CONFIG))
    assert found["the past does not depend on the future"].healthy
    assert not found["clips are reconstructed"].healthy  # of random weights
    whole = cvivit.Transformer

    def blind(*arguments, causal=False, **fields):
        return whole(*arguments, **fields)

    monkeypatch.setattr(cvivit, "Transformer", blind)
    found = doctor.examine_causality(params, CONFIG)
    assert not found.healthy
    assert found.figure.startswith("encoder: ")
    assert "causal mask" in found.advice


def test_each_terms_gradient_is_its_own():
    config = tiny.tokenizer_config(loss={"adversarial": 0.1}, gan={"width": 8})
    stage = stages.tokenizer_stage(config)
    state = jax.jit(stage.init)(jax.random.key(0))
    video = jnp.asarray(np.random.default_rng(0).integers(256, size=(2, 11, 16, 16, 3)), jnp.uint8)
    norms = doctor.gradient_norms(stage, state, video)
    assert set(norms) == {"l2", "vq", "adversarial"}
    assert min(norms.values()) > 0

    def l2(params):
        real = video / 255
        return jnp.square(stage.model.apply({"params": params}, real).video - real).mean()

    gradient = jax.jit(jax.grad(l2))(state.params)
    np.testing.assert_allclose(
        norms["l2"],
        np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradient))),
        rtol=1e-4,
    )
    heavy = tiny.tokenizer_config(loss={"adversarial": 1e5}, gan={"width": 8})
    found = doctor.examine_gradients(stages.tokenizer_stage(heavy), state, heavy)
    assert not found.healthy
    assert found.advice == "lower config.loss.adversarial."


def test_one_clip_is_learned_or_not():
    config = tiny.tokenizer_config(gan={"width": 8})
    whole, against = doctor.learn_clip(config, steps=600)
    assert whole.healthy, whole.figure
    assert against.healthy, against.figure
    assert not doctor.learn_clip(config, steps=1)[0].healthy
    assert doctor.learn_clip(config, steps=0) == []


# --- stage 2


def maskgit(**logged):
    return by_name(doctor.examine_maskgit(tiny.phenaki(), [{"video/loss": 10.0} | logged]))


def test_a_loss_of_the_wrong_places_is_named():
    found = maskgit()
    assert found["the loss is of the hidden codes"].healthy
    # Random weights know nothing.
    assert not found["hidden codes are predicted better than by chance"].healthy
    found = maskgit(**{"video/loss": 0.02})["the loss is of the hidden codes"]
    assert not found.healthy
    assert "inverted" in found.advice


def test_one_pair_is_learned_and_sampled_back():
    (found,) = doctor.learn_pair(tiny.phenaki(), steps=1500)
    assert found.healthy, found.figure
    (found,) = doctor.learn_pair(tiny.phenaki(), steps=2)
    assert not found.healthy
