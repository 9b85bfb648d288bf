"""Diagnostics and health warnings name what is broken on purpose, and nothing else."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from absl import logging
from ml_collections import ConfigDict

from phenaki.diagnostics import doctor, gradients, overfit
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.losses.tokenizer import LossOutput
from phenaki.models import cvivit, factory
from phenaki.train import health, state
from phenaki.train.stage import Stage

CONFIG = tiny.tokenizer_config()
CONTEST = tiny.tokenizer_config(loss={"adversarial": 0.1}, gan={"width": 8})
STAGE2 = tiny.whole_config()


def by_name(findings):
    return {finding.check: finding for finding in findings}


# --- logged metrics


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
def test_logged_metrics_are_checked(config, logged, check, healthy):
    lines = [{"step": 1000 + i, **logged} for i in range(health.RECENT)]
    options = health.HealthOptions.of(config.to_dict())
    assert by_name(health.read(lines, options))[check].healthy is healthy
    assert health.read(lines[1:], options) == []  # too few to tell
    assert by_name(health.read(lines[-1:], options, least=1))[check].healthy is healthy


@pytest.mark.parametrize(("decibels", "healthy"), [(9.0, False), (8.6, False), (13.9, True)])
def test_three_lines_show_a_collapse_to_one_colour(decibels, healthy):
    lines = [{"step": 900 + i, "psnr/rest": decibels, "psnr/flat": 9.1} for i in range(health.FEW)]
    options = health.HealthOptions.of(CONFIG.to_dict())
    (finding,) = health.read(lines, options)
    assert finding.healthy is healthy and "config.optim.rate lowered" in finding.advice
    assert health.read(lines[1:], options) == []


def test_lines_before_the_first_window_or_the_end_of_the_warmup_are_left_out():
    lines = [{"step": 1, "codebook/usage": 0.0}] * health.RECENT
    assert health.read(lines, health.HealthOptions.of(CONFIG.to_dict())) == []
    lines = [{"step": 2, "video/loss": 99.0}] * health.RECENT
    assert health.read(lines, health.HealthOptions.of(STAGE2.to_dict())) == []


def test_a_run_warns_once_while_a_check_fails(monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    monitor = health.HealthMonitor(health.HealthOptions.of(CONFIG.to_dict()))
    for step in range(100, 150):
        monitor.update(step, {"codebook/usage": 0.01})
    assert len(warnings) == 1
    assert "step 119" in warnings[0]
    assert "revive_until" in warnings[0]
    for step in range(150, 200):
        monitor.update(step, {"codebook/usage": 0.9})
    for step in range(200, 250):
        monitor.update(step, {"codebook/usage": 0.01})
    assert len(warnings) == 2


# --- stage 1


def test_causality_is_of_the_network_itself(monkeypatch):
    config = tiny.tokenizer_config(video={"frames": 5})
    params = tiny.random_params(factory.tokenizer(config), jnp.zeros((1, 5, 16, 16, 3)))
    model = factory.tokenizer(config)
    clips = doctor.tokenizer_case(config, steps=0).clips
    found = by_name(doctor.examine_tokenizer(model, params, clips))
    assert found["the past does not depend on the future"].healthy
    assert not found["clips are reconstructed"].healthy  # of random weights
    whole = cvivit.Transformer

    def blind(*arguments, causal=False, **fields):
        return whole(*arguments, **fields)

    monkeypatch.setattr(cvivit, "Transformer", blind)
    found = doctor.examine_causality(model, params, clips)
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
    discriminator = {"params": jnp.float32(1.0), "averages": {"real": jnp.float32(1.0)}}
    current = state.create({"x": jnp.ones(2)}, optax.sgd(1.0), {"discriminator": discriminator})
    norms = gradients.norms(stage, current, jnp.zeros((1, 1, 2, 2, 3), jnp.uint8))
    assert norms == {"l2": pytest.approx(10), "adversarial": pytest.approx(weight)}
    found = gradients.check(stage, current, np.zeros((1, 1, 2, 2, 3), np.uint8))
    assert found.healthy is healthy
    assert found.advice == (
        "lower config.loss.l2." if healthy else "lower config.loss.adversarial."
    )


def test_one_clip_is_learned_against_a_discriminator():
    case = doctor.tokenizer_case(CONTEST, steps=400)
    stage = case.overfits["against a discriminator"]
    reached = overfit.clip(stage, case.clips[:1], bar=20.0, steps=400, seed=0, what="one clip")
    assert reached.value > 20
    assert reached.steps < 400  # it stops there


def test_a_clip_is_overfit_alone_and_against_a_discriminator(monkeypatch):
    case = doctor.tokenizer_case(CONTEST, steps=7)

    def clip(stage, video, *, bar, steps, seed, what):
        against = stage is case.overfits["against a discriminator"]
        return overfit.Overfit(bar - 1 if against else bar + 1, steps)

    monkeypatch.setattr(overfit, "clip", clip)
    alone, against = overfit.check_clip(case.overfits, case.clips[:1], steps=7, seed=0)
    assert (alone.healthy, against.healthy) == (True, False)
    assert against.figure == "29.0 dB after 7 steps"
    assert "config.gan.r1" in against.advice
    assert doctor.tokenizer_case(CONTEST, steps=0).overfits == {}
    assert list(doctor.tokenizer_case(CONFIG, steps=7).overfits) == ["alone"]


# --- stage 2


def maskgit(**logged):
    model, lines = tiny.phenaki(), [{"video/loss": 10.0} | logged]
    return by_name(doctor.examine_maskgit(model, *doctor.captioned_clips(model), lines))


def test_a_loss_of_unmasked_tokens_is_named():
    found = maskgit()
    assert found["the loss is of the masked tokens"].healthy
    # Random weights predict nothing.
    assert not found["masked tokens are predicted better than by chance"].healthy
    found = maskgit(**{"video/loss": 0.02})["the loss is of the masked tokens"]
    assert not found.healthy
    assert "inverted" in found.advice


def test_one_pair_is_learned_and_sampled_back():
    model = tiny.phenaki()
    clips, captions = doctor.captioned_clips(model)
    (found,) = doctor.overfit_pair(model, clips, captions, steps=1500)
    assert found.healthy, found.figure
    (found,) = doctor.overfit_pair(model, clips, captions, steps=2)
    assert not found.healthy
    assert doctor.overfit_pair(model, clips, captions, steps=0) == []


def test_the_run_of_a_critic_is_refused_in_one_line(tmp_path, monkeypatch):
    config = ConfigDict({"kind": "critic"})
    monkeypatch.setattr(checkpoint, "load_run", lambda run: ({}, config, 1))
    with pytest.raises(UserError, match="is a critic's run; the checks are those of tokenizers"):
        next(doctor.examine_run(tmp_path, 0))
