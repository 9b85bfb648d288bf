"""The causality test passes a causal tokenizer and names how another one leaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki.diagnostics.causality import leaks
from phenaki.models import factory

CONFIG = tiny.tokenizer_config()
MODEL = factory.tokenizer(CONFIG)
VIDEO = np.random.default_rng(0).uniform(size=(2, 7, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def ours():
    params = tiny.random_params(MODEL, jnp.zeros((1, 11, 16, 16, 3)))

    def apply(method):
        return jax.jit(lambda x: MODEL.apply({"params": params}, x, method=method))

    return apply("encode"), apply("decode")


def test_cvivit_is_causal(ours):
    assert leaks(*ours, VIDEO, time=2, codebook=32) == []


def test_an_encoder_that_sees_the_whole_clip_is_named(ours):
    encode, decode = ours

    def whole(video):
        return encode(video + video[:, -1:])

    found = leaks(whole, decode, VIDEO, time=2, codebook=32)
    assert found
    assert all(line.startswith("encoder: ") for line in found)
    assert any("frames 0-0 differ" in line and "are cut off" in line for line in found)


def test_a_decoder_that_looks_ahead_is_named(ours):
    encode, decode = ours

    def ahead(tokens):
        video = np.array(decode(tokens))
        video[:, :-2] += 0.01 * video[:, 2:]  # an ordinary convolution over time
        return video

    found = leaks(encode, ahead, VIDEO, time=2, codebook=32)
    assert found
    assert all(line.startswith("decoder: ") for line in found)


def test_a_foreign_encoder_needs_no_decoder():
    def foreign(video):  # one token per 1 + 2n frames: the sign of what comes next
        frames = np.concatenate([video[:, :1], video[:, 1::2]], axis=1)
        following = np.concatenate([frames[:, 1:], frames[:, -1:]], axis=1)
        return (following.mean((2, 3, 4)) > 0.5).astype(int)[..., None, None]

    assert leaks(foreign, None, VIDEO, time=2, codebook=2)
