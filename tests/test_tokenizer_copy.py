"""The tokenizer with which stage 2 resumes: its own copy, whatever became of the given one."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.train import tokenizer_copy

CONFIG = tiny.tokenizer_config()


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(factory.tokenizer(CONFIG), jnp.zeros((1, 11, 16, 16, 3)))


def write(directory, params, config=CONFIG):
    checkpoint.save_bundle(directory, {"tokenizer": params}, config.to_dict(), kind="tokenizer")


@pytest.fixture
def run(tmp_path, params):
    """A run of stage 2 with a checkpoint, of the tokenizer in `tmp_path`/stage_1."""
    write(tmp_path / "stage_1", params)
    found = tokenizer_copy.resolve(tmp_path / "stage_1", tmp_path / "run")
    tokenizer_copy.keep(tmp_path / "run", *found)
    checkpoint.save_config(tmp_path / "run", tiny.whole_config().to_dict())
    (tmp_path / "run/checkpoints/5").mkdir(parents=True)
    return tmp_path / "run"


def assert_own(run, given, params):
    found, config, fingerprint = tokenizer_copy.resolve(given, run)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert fingerprint == checkpoint.fingerprint(params, CONFIG.to_dict())
    assert config.video == CONFIG.video


def test_a_run_resumes_with_its_copy_when_the_tokenizer_was_trained_further(
    run, tmp_path, params, caplog
):
    assert_own(run, tmp_path / "stage_1", params)
    assert not caplog.records
    write(tmp_path / "stage_1", jax.tree.map(lambda leaf: leaf * 1.01, params))
    assert_own(run, tmp_path / "stage_1", params)
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"--tokenizer={tmp_path}/stage_1: its parameters changed" in line
    assert f"resumes with its own copy, {run}/tokenizer" in line


@pytest.mark.parametrize("what", ["gone", "empty", "broken"])
def test_a_run_resumes_with_its_copy_when_the_tokenizer_is_not_there(
    what, run, tmp_path, params, caplog
):
    shutil.rmtree(tmp_path / "stage_1" / ("params" if what == "broken" else ""))
    if what == "empty":
        (tmp_path / "stage_1").mkdir()
    assert_own(run, tmp_path / "stage_1", params)
    assert "resumes with its own copy" in caplog.text


def test_another_tokenizer_is_refused(run, tmp_path, params):
    other = tiny.tokenizer_config(video={"fps": 5.0})
    write(tmp_path / "other", params, other)
    with pytest.raises(UserError, match=r"--tokenizer=.*other: has another config\.video"):
        tokenizer_copy.resolve(tmp_path / "other", run)
    # Before the first checkpoint the run takes what is given.
    shutil.rmtree(run / "checkpoints")
    _, config, _ = tokenizer_copy.resolve(tmp_path / "other", run)
    assert config.video.fps == 5
