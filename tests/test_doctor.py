"""The doctor: finds what is broken on purpose, and calls what is whole healthy."""

import jax.numpy as jnp
import pytest
import tiny

from phenaki import build, doctor
from phenaki.tokenizers import cvivit

CONFIG = tiny.tokenizer_config()


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(build.tokenizer(CONFIG), jnp.zeros((1, 11, 16, 16, 3)))


def by_name(findings):
    return {finding.check: finding for finding in findings}


def tokenizer(params, **logged):
    return by_name(doctor.examine_tokenizer(params, CONFIG, [logged]))


def test_causality_is_of_the_network_itself(params, monkeypatch):
    check = "the past does not depend on the future"
    assert tokenizer(params)[check].healthy
    whole = cvivit.Transformer

    def blind(*arguments, causal=False, **fields):
        return whole(*arguments, **fields)

    monkeypatch.setattr(cvivit, "Transformer", blind)
    found = tokenizer(params)[check]
    assert not found.healthy
    assert found.figure.startswith("encoder: ")
    assert "causal mask" in found.advice


def test_random_weights_reconstruct_nothing(params):
    assert not tokenizer(params)["clips are reconstructed"].healthy


@pytest.mark.parametrize(
    ("logged", "check", "healthy"),
    [
        ({"codebook/usage": 0.01}, "the codebook is used", False),
        ({"codebook/usage": 0.4}, "the codebook is used", True),
        (
            {"gan/accuracy_real": 0.99, "gan/accuracy_fake": 0.98},
            "the discriminator can be fooled",
            False,
        ),
        (
            {"gan/accuracy_real": 0.99, "gan/accuracy_fake": 0.7},
            "the discriminator can be fooled",
            True,
        ),
    ],
)
def test_what_the_log_says(params, logged, check, healthy):
    assert tokenizer(params, **logged)[check].healthy is healthy


def maskgit(**logged):
    lines = [{"video/loss": 10.0, "video/unconditional": 0.1} | logged]
    return by_name(doctor.examine_maskgit(tiny.phenaki(), lines))


def test_untrained_guidance_is_named():
    assert maskgit()["guidance is trained"].healthy
    found = maskgit(**{"video/unconditional": 0.0})["guidance is trained"]
    assert not found.healthy
    assert "drop_text" in found.advice


def test_a_loss_of_the_wrong_places_is_named():
    assert maskgit()["the loss is of the hidden codes"].healthy
    found = maskgit(**{"video/loss": 0.02})["the loss is of the hidden codes"]
    assert not found.healthy
    assert "inverted" in found.advice


def test_random_weights_predict_no_better_than_chance():
    found = maskgit()
    assert not found["hidden codes are predicted better than by chance"].healthy
    assert found["predictions vary"].healthy
