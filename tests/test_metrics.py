"""Measures of reconstructions against figures worked out by hand."""

import numpy as np
import pytest

from phenaki.metrics import reconstruction

RNG = np.random.default_rng(0)
REAL = RNG.uniform(size=(2, 40, 8, 8, 3)).astype(np.float32)


def test_psnr_of_a_known_error():
    assert reconstruction.psnr(REAL, REAL + np.float32(0.1)) == pytest.approx(20, abs=1e-3)


def test_flicker_of_errors_that_stand_still_are_fresh_and_alternate():
    still = np.broadcast_to(RNG.normal(size=(2, 1, 8, 8, 3)), REAL.shape)
    fresh = RNG.normal(size=REAL.shape)
    turning = still * np.where(np.arange(40) % 2, 1, -1)[:, None, None, None]
    for error, expected in ((still, 0), (fresh, 1), (turning, 2)):
        value = reconstruction.flicker(REAL, (REAL + 0.1 * error).astype(np.float32))
        assert value == pytest.approx(expected, abs=0.03)
