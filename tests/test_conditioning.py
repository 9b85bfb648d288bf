"""Masks of pixels become masks of tokens by each tokenizer's receptive field, and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import baselines
from phenaki.errors import UserError
from phenaki.models import factory
from phenaki.sampling import conditioning
from phenaki.types import VideoSpec

SPEC = VideoSpec(frames=11, height=16, width=16, fps=8.0, patch=(2, 8, 8))
SHORT = dict(video=dict(frames=5, height=16, width=16))


def _per_frame(variant, **fields):
    config = baselines.get_config(variant)
    config.video.update(SHORT["video"])
    config.tokenizer.update(code_dim=2, codebook=8, **fields)
    config.dtype, config.remat, config.unroll = "float32", "none", 1
    return config


CONFIGS = {
    "cvivit": lambda: tiny.tokenizer_config(**SHORT),
    "vit": lambda: _per_frame("vit_mini", patch=(1, 8, 8), width=8, depth=1, heads=2, mlp_dim=8),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_known_tokens_are_those_whose_every_pixel_is_known(name):
    """Brute force: every pixel of a clip in turn is unknown; every token by its gradient."""
    config = CONFIGS[name]()
    network, spec = factory.tokenizer(config), factory.video_spec(config)
    video = jax.random.uniform(jax.random.key(0), (1, spec.frames, 16, 16, 3))
    params = tiny.random_params(network, video)

    def vectors(video):
        return network.apply({"params": params}, video, method="_embed")[0].sum(-1) ** 2

    slopes = jax.jit(jax.jacrev(vectors))(video)[:, :, :, 0]  # [t m n f h w c]
    depends = np.asarray(jnp.any(slopes != 0, axis=-1))  # on each pixel
    pixels = spec.frames * 16 * 16
    unknown = np.eye(pixels, dtype=bool).reshape(pixels, spec.frames, 16, 16)
    lifted = conditioning.known_tokens(~unknown, spec.patch, network.receptive_field)
    lifted = lifted.reshape(spec.frames, 16, 16, *depends.shape[:3])
    np.testing.assert_array_equal(~np.moveaxis(lifted, (0, 1, 2), (3, 4, 5)), depends)


def test_one_unknown_pixel_of_frame_3_takes_latents_2_and_later():
    known = np.ones((1, 11, 16, 16), bool)
    known[0, 3, 5, 9] = False
    known_tokens = functools.partial(conditioning.known_tokens, known, SPEC.patch)
    assert known_tokens("past")[0].all((1, 2)).tolist() == [True, True, False, False, False, False]
    assert known_tokens("frame")[0].all((1, 2)).tolist() == [True, True, False, True, True, True]
    assert not known_tokens("clip").any()
    only = np.ones((6, 2, 2), bool)
    only[2, 0, 1] = False
    np.testing.assert_array_equal(known_tokens("patch")[0], only)


def test_what_is_exact_is_also_so_by_patch():
    known = np.random.default_rng(0).uniform(size=(50, 11, 1, 1)) < 0.8
    known = np.broadcast_to(known, (50, 11, 16, 16))
    exact, own = (
        conditioning.known_tokens(known, SPEC.patch, field) for field in ("past", "patch")
    )
    assert exact.any()
    assert not (exact & ~own).any()


def test_stand_ins_hold_the_last_value_then_the_next_then_the_mean():
    video = np.arange(5, dtype=np.float32)[None, :, None, None, None] * np.ones((1, 5, 1, 3, 3))
    known = np.zeros((1, 5, 1, 3), bool)
    known[0, [1, 3], 0, 0] = True  # the second pixel is known in the end only, the third never
    known[0, 4, 0, 1] = True
    given = np.where(known[..., None], video, np.nan).astype(np.float32)
    filled = conditioning.stand_in(given, known)[0, :, 0, :, 0]
    np.testing.assert_array_equal(filled[:, 0], [1, 1, 1, 3, 3])
    np.testing.assert_array_equal(filled[:, 1], [4] * 5)
    np.testing.assert_allclose(filled[:, 2], (1 + 3 + 4) / 3, rtol=1e-6)
    np.testing.assert_array_equal(conditioning.stand_in(given, known & False), 0.5)


VIDEO = np.zeros((1, 11, 16, 16, 3), np.float32)


def _frames(*known, of=11):
    return np.isin(np.arange(of), known)[:, None, None] & np.ones((of, 16, 16), bool)


@pytest.mark.parametrize(
    ("video", "known", "message"),
    [
        (VIDEO, np.ones((11, 16, 16)), r"known is float64 \(11, 16, 16\); it must be bool"),
        (VIDEO, np.ones((3, 11, 16, 16), bool), "of 3 samples, but there are 1 prompts"),
        (VIDEO, np.ones((11, 16, 8), bool), "the 16x16 pixels or the 2x2 tokens of a frame"),
        (VIDEO, np.ones((5, 2, 2), bool), "5 latents and video 11 frames; they belong to 9"),
        (VIDEO, np.ones((9, 16, 16), bool), "known is of 9 frames, the video has 11"),
        (VIDEO[:, :, :8], np.ones((11, 16, 16), bool), r"they must be \[b f 16 16 3\]"),
        (np.repeat(VIDEO, 2, 0), np.ones((11, 16, 16), bool), "2 videos and 1 prompts"),
        (np.repeat(VIDEO, 2, 1), np.ones((22, 16, 16), bool), "one clip has at most 11"),
        (None, np.ones((6, 2, 2), bool), "no video they come from"),
        (None, np.ones((11, 16, 16), bool), "no video they come from"),
        (VIDEO, _frames(0, 1, 2, 3), "frame 3 .* Nearest: the first 3 frames"),
        (VIDEO, _frames(0, 1, 2, 9, 10), "frame 9 .* approximate=True"),
        (VIDEO, _frames(10), r"frame 10 are known, but none of its tokens is.*1 \+ n·2 frames"),
        (VIDEO, np.ones((11, 16, 16), bool) & (np.arange(16) < 8), "pixels of frame 0 are known"),
    ],
)
def test_conditioning_that_would_be_ignored_is_an_error(video, known, message):
    with pytest.raises(UserError, match=message):
        conditioning.prepare(video, np.asarray(known), 1, SPEC, "past")


def test_sixteen_frames_are_filled_as_seventeen():
    spec = VideoSpec(frames=17, height=16, width=16, fps=8.0, patch=(2, 8, 8))
    given = conditioning.prepare(
        np.zeros((1, 16, 16, 16, 3)), _frames(*range(5), of=16), 1, spec, "past"
    )
    assert (given.video.shape[1], given.frames, given.tokens.shape[1]) == (17, 16, 9)
    assert given.tokens[0].all((1, 2)).tolist() == [True] * 3 + [False] * 6
