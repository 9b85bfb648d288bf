"""The doctor and the live warnings: they name what is broken on purpose, and nothing else."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from absl import logging

from phenaki.diagnostics import doctor, overfit
from phenaki.losses.tokenizer import LossOutput
from phenaki.models import cvivit, factory
from phenaki.train import health, state
from phenaki.train.stage import Stage

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
    lines = [{"step": 1000 + i, **logged} for i in range(health.RECENT)]
    options = health.HealthOptions.of(config.to_dict())
    assert by_name(health.read(lines, options))[check].healthy is healthy
    assert health.read(lines[1:], options) == []  # too few to tell
    assert by_name(health.read(lines[-1:], options, least=1))[check].healthy is healthy


def test_what_comes_before_the_first_window_or_the_end_of_the_warmup_says_nothing():
    lines = [{"step": 1, "codebook/usage": 0.0}] * health.RECENT
    assert health.read(lines, health.HealthOptions.of(CONFIG.to_dict())) == []
    lines = [{"step": 2, "video/loss": 99.0}] * health.RECENT
    assert health.read(lines, health.HealthOptions.of(STAGE2.to_dict())) == []


def test_a_run_warns_once_while_it_is_ill(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    watch = health.HealthMonitor(health.HealthOptions.of(CONFIG.to_dict()))
    for step in range(100, 150):
        watch.update(step, {"codebook/usage": 0.01})
    assert len(said) == 1
    assert "step 119" in said[0]
    assert "revive_until" in said[0]
    for step in range(150, 200):
        watch.update(step, {"codebook/usage": 0.9})
    for step in range(200, 250):
        watch.update(step, {"codebook/usage": 0.01})
    assert len(said) == 2


# --- stage 1


def test_causality_is_of_the_network_itself(monkeypatch):
    config = tiny.tokenizer_config(video={"frames": 5})
    params = tiny.random_params(factory.tokenizer(config), jnp.zeros((1, 5, 16, 16, 3)))
    found = by_name(doctor.examine_tokenizer(params, config))
    assert found["the past does not depend on the future"].healthy
    assert not found["clips are reconstructed"].healthy  # of random weights
    whole = cvivit.Transformer

    def blind(*arguments, causal=False, **fields):
        return whole(*arguments, **fields)

    monkeypatch.setattr(cvivit, "Transformer", blind)
    found = doctor.examine_causality(params, config)
    assert not found.healthy
    assert found.figure.startswith("encoder: ")
    assert "causal mask" in found.advice


@pytest.mark.parametrize(("weight", "healthy"), [(1.0, True), (1001.0, False)])
def test_each_terms_gradient_is_its_own(weight, healthy):
    def evaluate(params, frozen, real, key, step, averages):
        x = params["generator"]["x"] * params["discriminator"] * averages["real"]
        terms = {"l2": frozen * (3 * x[0] + 4 * x[1]), "adversarial": weight * (x[0] + real.mean())}
        return LossOutput(sum(terms.values()), terms, {}, jnp.zeros(1), x)

    stage = Stage(None, None, None, jnp.float32(2.0), evaluate)
    player = {"params": jnp.float32(1.0), "averages": {"real": jnp.float32(1.0)}}
    current = state.create({"x": jnp.ones(2)}, optax.sgd(1.0), {"discriminator": player})
    norms = doctor.gradient_norms(stage, current, jnp.zeros((1, 1, 2, 2, 3), jnp.uint8))
    assert norms == {"l2": pytest.approx(10), "adversarial": pytest.approx(weight)}
    found = doctor.examine_gradients(stage, current, CONFIG)
    assert found.healthy is healthy
    assert found.advice == (
        "lower config.loss.l2." if healthy else "lower config.loss.adversarial."
    )


def test_one_clip_is_learned_against_a_discriminator():
    config = tiny.tokenizer_config(gan={"width": 8})
    video = doctor._clips(config)[:1]
    reached = overfit.clip(config, video, bar=20.0, adversary=True, steps=400)
    assert reached.value > 20
    assert reached.steps < 400  # it stops there


def test_what_is_said_of_a_clip(monkeypatch):
    def clip(config, video, *, bar, adversary, steps):
        return overfit.Overfit(bar - 1 if adversary else bar + 1, steps)

    monkeypatch.setattr(overfit, "clip", clip)
    whole, against = doctor.learn_clip(CONFIG, steps=7)
    assert (whole.healthy, against.healthy) == (True, False)
    assert against.figure == "29.0 dB after 7 steps"
    assert "config.gan.r1" in against.advice
    assert doctor.learn_clip(CONFIG, steps=0) == []


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
