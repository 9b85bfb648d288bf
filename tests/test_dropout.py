"""Dropout: the right fraction, and no pattern though two words make a whole matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phenaki.blocks.dropout import Dropout, kept


def mask(shape, rate, seed=0):
    made = Dropout(rate, deterministic=False)
    out = made.apply({}, jnp.ones(shape), rngs={"dropout": jax.random.key(seed)})
    np.testing.assert_allclose(np.unique(out), [0, 1 / (1 - rate)], rtol=1e-6)
    return np.asarray(out) > 0


def deviation(values):
    """Of a mean from 0, in its standard errors."""
    return abs(values.mean()) / (values.std() / values.size**0.5)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_elements_are_dropped_at_the_rate_and_independently(rate):
    dropped = 1.0 - mask((4, 8, 256, 512), rate) - rate
    assert deviation(dropped) < 4
    for down, right in ((0, 1), (1, 0), (1, 1), (7, 5)):
        moved = np.roll(dropped, (down, right), (-2, -1))
        assert deviation(dropped * moved) < 4
        # Four corners of a rectangle share two rows' and two columns' words.
        across = np.roll(dropped, down or 1, -2) * np.roll(dropped, right or 1, -1)
        corner = np.roll(dropped, (down or 1, right or 1), (-2, -1))
        assert deviation(dropped * across * corner) < 4
    variance = dropped.var()
    for axis, count in ((-1, 512), (-2, 256)):
        assert dropped.mean(axis).var() / (variance / count) == pytest.approx(1, abs=0.05)


def test_a_mask_has_no_direction_of_its_own():
    signs = 2.0 * mask((256, 512), 0.5) - 1
    largest = np.linalg.svd(signs, compute_uv=False)[0]
    assert largest < 1.03 * (256**0.5 + 512**0.5)  # as of independent signs


def test_the_mask_depends_on_the_words_alone():
    rows = jax.random.bits(jax.random.key(0), (3, 16, 1))
    columns = jax.random.bits(jax.random.key(1), (3, 1, 16))
    whole = kept(rows, columns, 0.3)
    part = kept(rows[:, 4:8], columns[..., 2:5], 0.3)
    np.testing.assert_array_equal(whole[:, 4:8, 2:5], part)


def test_nothing_is_dropped_if_deterministic_or_at_rate_zero():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(Dropout(0.9, deterministic=True)(x), x)
    np.testing.assert_array_equal(Dropout(0.0)(x, deterministic=False), x)
    drop = Dropout(0.5, deterministic=False)
    first, again, other = (
        drop.apply({}, x + 1, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 0, 3)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
