"""Causality test of any tokenizer: does the future reach the past (§2.1)?"""

from collections.abc import Callable, Iterator

import numpy as np

TOLERANCE = 1e-4  # in pixel values: sums over another number of frames round differently


def leaks(
    encode: Callable[[np.ndarray], np.ndarray],
    decode: Callable[[np.ndarray], np.ndarray] | None,
    video: np.ndarray,
    time: int,
    codebook: int,
    seed: int = 0,
) -> list[str]:
    """A sentence for each way in which the past depends on the future; none if it does not.

    `encode` maps float32 clips [b f h w 3] in [0, 1] of 1 + n·`time` frames to tokens [b t m n] in
    0 .. `codebook` - 1, `decode` (None: not tested) back. Later frames, and later tokens, are
    replaced by noise, then cut off: the earlier tokens and pixels must not change.
    """
    random = np.random.default_rng(seed)
    tokens = np.asarray(encode(video))
    found = list(_encoder_leaks(encode, video, tokens, time, random))
    if decode is not None:
        found += _decoder_leaks(decode, tokens, time, codebook, random)
    return found


def _encoder_leaks(encode, video, tokens, time, random) -> Iterator[str]:
    for latent in range(tokens.shape[1] - 1):
        end = 1 + latent * time
        other = video.copy()
        other[:, end:] = random.uniform(size=other[:, end:].shape)
        for what, clip in (("change", other), ("are cut off", video[:, :end])):
            wrong = np.mean(np.asarray(encode(clip))[:, : latent + 1] != tokens[:, : latent + 1])
            if wrong:
                yield (
                    f"encoder: {wrong:.1%} of the tokens of frames 0-{end - 1} differ when the "
                    f"frames after them {what}."
                )


def _decoder_leaks(decode, tokens, time, codebook, random) -> Iterator[str]:
    video = np.asarray(decode(tokens))
    for latent in range(tokens.shape[1] - 1):
        end = 1 + latent * time
        other = tokens.copy()
        other[:, latent + 1 :] = random.integers(codebook, size=other[:, latent + 1 :].shape)
        for what, part in (("change", other), ("are cut off", tokens[:, : latent + 1])):
            error = np.abs(np.asarray(decode(part))[:, :end] - video[:, :end]).max()
            if not error <= TOLERANCE:
                yield (
                    f"decoder: pixels of frames 0-{end - 1} move by up to {error:.2g} when the "
                    f"tokens after them {what}."
                )
