"""The Fréchet distance, interval and floor against what is known without computing them."""

import numpy as np
import pytest

from phenaki.errors import UserError
from phenaki.evaluation.metrics import bootstrap, frechet

RNG = np.random.default_rng(0)


def fit(x):
    return frechet.gaussian(frechet.moments(x))


def rotation(size):
    return np.linalg.qr(RNG.normal(size=(size, size)))[0]


@pytest.mark.parametrize(
    "count", (5, 30, 500), ids=("fewer", "about as many", "more than features")
)
def test_equal_sets_are_at_zero(count):
    x = RNG.normal(size=(count, 30)).astype(np.float32) * 7 + 100
    assert abs(frechet.distance(frechet.gaussian_of(x), frechet.gaussian_of(x))) < 1e-8
    assert abs(frechet.distance(fit(x), fit(x))) < 1e-8


@pytest.mark.parametrize("count", (10, 200))
def test_a_shifted_set_is_at_the_squared_shift(count):
    x, shift = RNG.normal(size=(count, 30)), RNG.normal(size=30)
    found = frechet.distance(frechet.gaussian_of(x), frechet.gaussian_of(x + shift))
    assert found == pytest.approx(shift @ shift, abs=1e-9)


def test_a_scaled_set_is_at_the_scaled_deviations():
    """For S2 = c² S1, tr(S1 + S2 - 2 (S1 S2)^½) = (c - 1)² tr S1."""
    x = RNG.normal(size=(100, 12))
    x -= x.mean(0)
    trace = np.cov(x.T).trace()
    assert frechet.distance(fit(x), fit(3 * x)) == pytest.approx(4 * trace)


def test_rotating_both_sets_changes_nothing_and_one_a_known_amount():
    x, y, turn = RNG.normal(size=(80, 9)) * np.arange(1, 10), RNG.normal(size=(70, 9)), rotation(9)
    assert frechet.distance(fit(x @ turn), fit(y @ turn)) == pytest.approx(
        frechet.distance(fit(x), fit(y)), rel=1e-9
    )
    # A quarter turn of diag(a², b²) exchanges them: twice (a - b)².
    a, b = 3.0, 0.5
    flat = RNG.normal(size=(400, 2))
    flat = np.linalg.solve(np.linalg.cholesky(np.cov(flat.T)), (flat - flat.mean(0)).T).T * (a, b)
    quarter = flat @ np.array([[0, 1], [-1, 0]])
    assert frechet.distance(fit(flat), fit(quarter)) == pytest.approx(2 * (a - b) ** 2)


def independent(x, y):
    """The formula of pytorch-fid, its product's square root by the eigenvalues of S1 S2."""
    s, t = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.maximum(np.linalg.eigvals(s @ t).real, 0)).sum()
    return np.square(x.mean(0) - y.mean(0)).sum() + s.trace() + t.trace() - 2 * root


@pytest.mark.parametrize("count", (8, 60), ids=("singular", "regular"))
def test_agrees_with_the_formula_on_covariances(count):
    x = RNG.normal(size=(count, 20)) @ RNG.normal(size=(20, 20))
    y = RNG.normal(size=(count + 3, 20)) + 0.5
    expected = independent(x, y)
    for found in (
        frechet.distance(fit(x), fit(y)),
        frechet.distance(frechet.gaussian_of(x), frechet.gaussian_of(y)),
    ):
        # The formula's own root turns rounding of 1e-16 into 1e-8 per empty direction.
        assert found == pytest.approx(expected, rel=1e-6)


def test_parts_merge_to_the_whole_also_far_from_the_origin():
    x = (RNG.normal(size=(90, 6)) + 1e6).astype(np.float64)
    parts = [frechet.moments(part) for part in np.split(x, (1, 40, 41))]
    total = parts[2]
    for index in (0, 3, 1):  # in any order
        total = frechet.merge(total, parts[index])
    assert total.count == 90
    np.testing.assert_allclose(total.scatter / 89, np.cov(x.T), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-15)


@pytest.mark.parametrize("features", (3, 40), ids=("regular", "singular"))
def test_a_weight_is_a_repetition(features):
    x, weights = RNG.normal(size=(20, features)), RNG.integers(0, 4, 20)
    y = RNG.normal(size=(25, features))
    weighted = frechet.gaussian_of(x, weights.astype(float))
    repeated = frechet.gaussian_of(np.repeat(x, weights, axis=0))
    other = frechet.gaussian_of(y)
    assert frechet.distance(weighted, other) == pytest.approx(
        frechet.distance(repeated, other), rel=1e-9
    )


def test_too_few_samples_and_other_networks_are_refused():
    with pytest.raises(UserError, match="of 1 samples is undefined; give 2 or more"):
        frechet.gaussian_of(np.zeros((1, 4)))
    for count in (3, 40):  # fewer and more rows than columns
        features = RNG.normal(size=(count, 4))
        features[1, 2] = np.nan if count == 3 else np.inf
        with pytest.raises(UserError, match="features are not finite; look for NaN in the clips"):
            fit(features)
    with pytest.raises(UserError, match="must come from one"):
        frechet.distance(fit(RNG.normal(size=(9, 3))), fit(RNG.normal(size=(9, 4))))


def test_the_interval_of_a_mean_is_its_standard_error():
    x = RNG.normal(size=400)
    low, high = bootstrap.mean_interval(x, resamples=4000, seed=0)
    expected = 1.96 * x.std() / 20
    assert (high - low) / 2 == pytest.approx(expected, rel=0.05)
    assert (low + high) / 2 == pytest.approx(x.mean())
    assert bootstrap.mean_interval(x, resamples=4000, seed=0) == (low, high)


def test_halves_share_nothing():
    a, b = bootstrap.halves(11, seed=3)
    assert len(a) == len(b) == 5
    assert not set(a) & set(b)
