"""SSIM and PSNR compared with scikit-image's.

    PHENAKI_GOLDEN=1 python -m pytest tests/parity/test_ssim.py

also writes tests/golden/ssim.npz, which the ordinary tests compare with.
"""

import os
from pathlib import Path

import numpy as np
import pytest

metrics = pytest.importorskip("skimage.metrics")

from phenaki.evaluation.metrics import reconstruction  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "ssim.npz"


def clips():
    """Pairs from hardly to badly disturbed."""
    rng = np.random.default_rng(0)
    real = rng.uniform(size=(1, 3, 16, 20, 3))
    real = (real + np.roll(real, 1, 2) + np.roll(real, 1, 3)) / 3
    noise = rng.normal(size=real.shape) * np.array([0.01, 0.1, 0.4])[:, None, None, None]
    return real.astype(np.float32), np.clip(real + noise, 0, 1).astype(np.float32)


def test_ssim(parity):
    real, fake = clips()
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    theirs = [
        [
            metrics.structural_similarity(x, y, data_range=1.0, channel_axis=-1, **options)
            for x, y in zip(*pair, strict=True)
        ]
        for pair in zip(real.astype(np.float64), fake.astype(np.float64), strict=True)
    ]
    parity("SSIM", "per frame", reconstruction.frame_ssim(real, fake), np.array(theirs))
    if os.environ.get("PHENAKI_GOLDEN"):
        np.savez(GOLDEN, real=real, fake=fake, ssim=np.array(theirs))


def test_psnr(parity):
    real, fake = clips()
    theirs = [
        [metrics.peak_signal_noise_ratio(x, y, data_range=1.0) for x, y in zip(*p, strict=True)]
        for p in zip(real.astype(np.float64), fake.astype(np.float64), strict=True)
    ]
    parity("PSNR", "per frame", reconstruction.frame_psnr(real, fake), np.array(theirs))
