"""Mask schedules, prefixes, and what a loss over masked tokens is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.losses import masked_tokens
from phenaki.sampling import schedules

# MaskGIT's definitions, by hand: γ(r) for a clip of n codes.
BY_HAND = {
    "cosine": lambda r, n: np.cos(np.pi * r / 2),
    "uniform": lambda r, n: 1 - r,
    "linear": lambda r, n: 1 - r,
    "square": lambda r, n: 1 - r * r,
    "cubic": lambda r, n: 1 - r * r * r,
    "exp": lambda r, n: 1 - float(n) ** -(1 - r),
}


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_schedule_is_its_formula_for_both_kinds_of_array(name):
    assert schedules.SCHEDULES.keys() == BY_HAND.keys()
    for r in (0.0, 0.25, 2 / 3, 1.0):
        for length in (24, 1536):
            expected = np.clip(BY_HAND[name](r, length), 1e-6, 1)
            ours = schedules.SCHEDULES[name](np.array(r), length)
            assert ours == pytest.approx(expected, rel=1e-12)
            traced = jax.jit(schedules.SCHEDULES[name])(jnp.asarray(r), length)
            assert float(traced) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@functools.partial(jax.jit, static_argnums=(1, 2))
def draw(key, shape, name, known):
    return schedules.sample_mask(key, shape, schedules.SCHEDULES[name], known)


@pytest.mark.parametrize("name", ["square", "exp"])
def test_training_masks_the_ceiling_of_its_schedule_among_what_is_not_given(name):
    rows, length = 500, 40
    known = np.random.default_rng(0).random((rows, length)) < 0.4
    key = jax.random.key(1)
    mask = np.asarray(draw(key, (rows, length), name, known))
    assert not (mask & known).any()
    free = (~known).sum(-1)
    r = np.asarray(jax.random.uniform(jax.random.split(key)[0], (rows,)), np.float64)
    wanted = np.array([max(BY_HAND[name](x, n), 1e-6) * n for x, n in zip(r, free, strict=True)])
    clear = abs(wanted - wanted.round()) > 1e-4  # float32 may round the others either way
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(mask.sum(-1)[clear], np.ceil(wanted)[clear])


def test_a_prefix_is_whole_latent_frames_and_never_all_of_them():
    known = np.asarray(schedules.sample_prefix(jax.random.key(0), (4000, 24), 4, 0.25))
    frames = known.reshape(-1, 6, 4)
    assert (frames.all(-1) == frames.any(-1)).all()
    count = frames.all(-1).sum(-1)
    np.testing.assert_array_equal(known, np.arange(24) < 4 * count[:, None])
    assert abs((count > 0).mean() - 0.25) < 0.03
    shares = np.bincount(count[count > 0], minlength=6)[1:] / (count > 0).sum()
    assert shares.shape == (5,)
    assert np.abs(shares - 0.2).max() < 0.05
    assert not schedules.sample_prefix(jax.random.key(0), (100, 4), 4, 1.0).any()


def test_a_decile_is_the_tenth_of_the_masked_share():
    mask = np.arange(1536) < np.arange(0, 1537)[:, None]
    expected = np.minimum(np.arange(1537) * 10 // 1536, 9)
    np.testing.assert_array_equal(schedules.decile(jnp.asarray(mask)), expected)


# --- losses

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(5, 9, 7), scale=2), jnp.float32)
CODES = jnp.asarray(RNG.integers(7, size=(5, 9)), jnp.int32)
MASK = np.arange(9) < np.array([[1], [3], [9], [5], [2]])
WIDE = np.asarray(LOGITS, np.float64)
LOG_P = WIDE - np.log(np.exp(WIDE).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_moves_that_share_of_the_target_to_all_codes(smoothing):
    target = (1 - smoothing) * np.eye(7)[CODES] + smoothing / 7
    expected = [-(target[i] * LOG_P[i]).sum(-1)[MASK[i]].mean() for i in range(5)]
    loss, accuracy = masked_tokens.masked_cross_entropy(LOGITS, CODES, jnp.asarray(MASK), smoothing)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    hit = LOGITS.argmax(-1) == CODES
    np.testing.assert_allclose(accuracy, [hit[i][MASK[i]].mean() for i in range(5)], rtol=1e-6)


def test_entropy_is_of_the_predictions_at_masked_codes():
    every = -(np.exp(LOG_P) * LOG_P).sum(-1)
    expected = [every[i][MASK[i]].mean() for i in range(5)]
    np.testing.assert_allclose(
        masked_tokens.masked_entropy(LOGITS, jnp.asarray(MASK)), expected, rtol=1e-5
    )
    flat = masked_tokens.masked_entropy(jnp.zeros((1, 4, 7)), jnp.ones((1, 4), bool))
    np.testing.assert_allclose(flat, np.log(7), rtol=1e-6)


def test_the_mean_over_codes_is_sums_over_all_kinds_and_rows():
    counts = {"video": jnp.asarray([1, 3, 9]), "image": jnp.asarray([5, 2])}
    loss = {"video": np.array([1.0, 2.0, 4.0]), "image": np.array([8.0, 16.0])}
    weights = masked_tokens.weight_tokens(counts)
    mean = sum((np.asarray(weights[kind]) * loss[kind]).sum() for kind in loss) / 5
    expected = sum((np.asarray(counts[kind]) * loss[kind]).sum() for kind in loss) / 20
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    assert all((np.asarray(w) == 1).all() for w in masked_tokens.weight_samples(counts).values())


def test_binary_cross_entropy_is_of_the_sigmoid():
    logits = np.array([[-3.0, 0.0, 2.0, 100.0, -100.0]], np.float32)
    labels = np.array([[True, False, True, False, True]])
    p = 1 / (1 + np.exp(-logits[:, :3].astype(float)))
    expected = -np.log(np.where(labels[:, :3], p, 1 - p))
    ours = np.asarray(masked_tokens.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels)))
    np.testing.assert_allclose(ours[:, :3], expected, rtol=1e-5)
    np.testing.assert_allclose(ours[:, 3:], 100)
