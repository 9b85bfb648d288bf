"""How close a reconstruction is to its clip, frame by frame and over time."""

import numpy as np
from jaxtyping import Float

Clips = Float[np.ndarray, "b f h w 3"]


def psnr(real: Clips, fake: Clips) -> float:
    """Peak signal-to-noise ratio in dB, of the mean squared error of all clips together."""
    return float(-10 * np.log10(np.mean(np.square(fake - real))))


def flicker(real: Clips, fake: Clips) -> float:
    """Share of the squared error that is new in every frame: 0 if errors stand still, 1 if fresh.

    E|e_t+1 - e_t|² / (E|e_t|² + E|e_t+1|²) of the errors e of neighbouring frames; between 1 and 2
    errors alternate. Unlike the PSNR it does not reward blurring.
    """
    error = fake - real
    before, after = error[:, :-1], error[:, 1:]
    return float(
        np.mean(np.square(after - before)) / (np.mean(np.square(before) + np.square(after)))
    )
