"""Measures of videos against figures worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from phenaki.errors import UserError
from phenaki.evaluation.metrics import checks, codebook, inception_score, long_video, reconstruction

GOLDEN = Path(__file__).parent / "golden"
# The suite checks annotations, which users' calls do not: either refuses.
REFUSED = (UserError, TypeCheckError)

RNG = np.random.default_rng(0)
REAL = RNG.uniform(size=(2, 40, 8, 8, 3)).astype(np.float32)


def test_psnr_of_a_known_error():
    assert reconstruction.psnr(REAL, REAL + np.float32(0.1)) == pytest.approx(20, abs=1e-3)


def test_psnr_of_equal_clips_is_finite():
    assert reconstruction.psnr(REAL, REAL) == reconstruction.MAX_PSNR


MEASURES = [getattr(reconstruction, x) for x in ("psnr", "flicker", "frame_psnr", "frame_ssim")]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_a_difference_of_bytes_would_wrap_around(measure, kind):
    real = np.zeros((1, 9, 16, 16, 3), np.float32)
    for clips in ((real.astype(kind), real), (real, real.astype(kind))):
        with pytest.raises(REFUSED, match="must be floating point|annotation"):
            measure(*clips)


@pytest.mark.parametrize("measure", MEASURES)
def test_clips_of_other_shapes_are_not_stretched_to_each_other(measure):
    real = np.zeros((2, 9, 16, 16, 3), np.float32)
    with pytest.raises(REFUSED, match="must be of one shape|annotation"):
        measure(real, real[:1])


def test_flicker_of_errors_that_stand_still_are_fresh_and_alternate():
    still = np.broadcast_to(RNG.normal(size=(2, 1, 8, 8, 3)), REAL.shape)
    fresh = RNG.normal(size=REAL.shape)
    turning = still * np.where(np.arange(40) % 2, 1, -1)[:, None, None, None]
    for error, expected in ((still, 0), (fresh, 1), (turning, 2)):
        value = reconstruction.flicker(REAL, (REAL + 0.1 * error).astype(np.float32))
        assert value == pytest.approx(expected, abs=0.03)


def blurred(video):
    return (video + np.roll(video, 1, 2) + np.roll(video, 1, 3)) / 3


@pytest.mark.parametrize("measure", (reconstruction.frame_psnr, reconstruction.frame_ssim))
def test_frame_measures_fall_with_noise_and_blur(measure):
    real = RNG.uniform(size=(2, 3, 16, 16, 3)).astype(np.float32)
    noise = RNG.normal(size=real.shape).astype(np.float32)
    noisy = [float(measure(real, real + scale * noise).mean()) for scale in (0, 0.02, 0.1, 0.5)]
    assert all(np.diff(noisy) < 0)
    once, twice = (float(measure(real, x).mean()) for x in (blurred(real), blurred(blurred(real))))
    assert noisy[0] > once > twice


def test_frame_psnr_is_of_each_frame_and_finite_for_equal_ones():
    real = np.zeros((1, 2, 8, 8, 3), np.float32)
    fake = real.copy()
    fake[:, 1] = 0.1
    np.testing.assert_allclose(reconstruction.frame_psnr(real, fake), [[100, 20]], atol=1e-4)


def test_ssim_of_scikit_image():
    """Made by tests/parity/test_ssim.py."""
    with np.load(GOLDEN / "ssim.npz") as golden:
        found = reconstruction.frame_ssim(golden["real"], golden["fake"])
        np.testing.assert_allclose(found, golden["ssim"], atol=2e-6)


def test_ssim_of_constants_is_the_luminance_term():
    real = np.full((1, 1, 12, 14, 3), 0.5, np.float32)
    found = reconstruction.frame_ssim(real, real + np.float32(0.2))
    expected = (2 * 0.5 * 0.7 + 1e-4) / (0.5**2 + 0.7**2 + 1e-4)
    assert float(found[0, 0]) == pytest.approx(expected, abs=1e-3)


def test_inception_score_of_certain_and_of_uncertain_classes():
    """exp of the mutual information: k for k certain classes, 1 where the image says nothing."""
    certain = np.tile(50.0 * np.eye(4), (25, 1))
    value, deviation = inception_score.inception_score(np.split(certain, 4), 100, splits=5)
    assert (value, deviation) == (pytest.approx(4), pytest.approx(0, abs=1e-9))
    value, _ = inception_score.inception_score([np.ones((100, 4))], 100)
    assert value == pytest.approx(1)
    # Two classes at 3/4 and 1/4: the information of a binary symmetric channel.
    p = np.array([[0.75, 0.25], [0.25, 0.75]])
    channel = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    value, _ = inception_score.inception_score([np.log(np.tile(p, (20, 1)))], 40, splits=2)
    assert value == pytest.approx(np.exp(channel))


def test_inception_score_does_not_depend_on_how_it_is_cut():
    logits = RNG.normal(size=(57, 6))
    whole = inception_score.inception_score([logits], 57, splits=5)
    cut = inception_score.inception_score(np.split(logits, (1, 20, 21)), 57, splits=5)
    assert cut == pytest.approx(whole)
    with pytest.raises(UserError, match="of 3 samples: give 10 or more"):
        inception_score.inception_score([logits[:3]], 3)
    for total in (len(logits) - 5, len(logits) + 5):
        with pytest.raises(ValueError, match="rows of logits"):
            inception_score.inception_score([logits], total, splits=2)


def test_tokens_are_counted_part_by_part():
    tokens = RNG.integers(0, 6, size=(5, 7))
    counts = codebook.count(tokens[:2], 12) + codebook.count(tokens[2:], 12)
    assert (counts == np.bincount(tokens.ravel(), minlength=12)).all()
    assert codebook.usage(counts) == 0.5
    assert codebook.perplexity(np.array([3, 3, 0, 3])) == pytest.approx(3)
    with pytest.raises(UserError, match="tokens from 0 to 12: must be 0 .. 11"):
        codebook.count(np.array([0, 12]), 12)
    with pytest.raises(UserError, match="of no tokens is undefined"):
        codebook.perplexity(np.zeros(12, int))


def moving(steps, size=32):
    """A textured square that moves by `steps` (y, x) per frame over black."""
    video = np.zeros((1, len(steps) + 1, size, size, 3), np.float32)
    texture = RNG.uniform(0.3, 1, size=(8, 8, 3))
    y = x = 12
    for frame, (down, right) in enumerate([(0, 0), *steps]):
        y, x = y + down, x + right
        video[:, frame, y : y + 8, x : x + 8] = texture
    return video


def test_flow_finds_a_known_shift_and_leaves_the_flat_ground_alone():
    ground = RNG.uniform(size=(1, 32, 32, 3)).astype(np.float32)
    for shift in ((0, 0), (2, -1), (-3, 3)):
        after = np.roll(ground, shift, (1, 2))
        vectors = np.asarray(long_video.flow(ground, after))[0, 1:-1, 1:-1]
        assert (vectors == -np.array(shift)).all()
    flat = np.full((1, 32, 32, 3), 0.5, np.float32)
    assert not np.asarray(long_video.flow(flat, flat)).any()


def test_motion_explains_moving_objects_and_not_flicker():
    """The square moves by whole blocks' texture: what is left is the ground that it uncovers."""
    warped, still = long_video.warp_error(moving([(0, 2)] * 4), block=4)
    assert warped < 0.2 * still
    flicker = RNG.uniform(size=(1, 5, 32, 32, 3)).astype(np.float32)
    warped, still = long_video.warp_error(flicker)
    assert warped > 0.6 * still


def test_drift_is_flat_for_what_stays_and_grows_for_what_wanders():
    noise = RNG.normal(size=(4, 40, 3))
    assert (long_video.drift(noise, 10) < 1).all()
    away = noise + np.arange(40)[:, None]
    found = long_video.drift(away, 10)
    assert found[0] == 0
    assert all(np.diff(found) > 0)
    with pytest.raises(UserError, match="needs two windows of 30 or more"):
        long_video.drift(noise, 30)


def test_the_seam_ratio_shows_where_windows_do_not_fit():
    video = np.cumsum(np.full((1, 12, 2, 2, 3), 0.01), axis=1)
    assert long_video.seam_ratio(video, [5, 9]) == pytest.approx(1)
    video[:, 5:] += 0.04
    assert long_video.seam_ratio(video, [5]) == pytest.approx(5)
    with pytest.raises(UserError, match="must be frames 1 .. 11"):
        long_video.seam_ratio(video, [12])


def test_the_seam_ratio_is_of_the_seams_and_steps_of_windows():
    video = RNG.uniform(size=(1, 12, 4, 4, 3))

    def difference(x, y):
        return np.abs(x - y).mean((1, 2, 3))

    seams, steps = [], []
    for start, end in ((0, 5), (5, 9), (9, 12)):
        before = video[0, start - 1] if start else None
        seam, within = long_video.seam_and_steps(video[0, start:end], before, difference)
        assert (seam is None) is (start == 0)
        seams += [] if seam is None else [seam]
        steps += list(within)
    assert (len(seams), len(steps)) == (2, 9)
    expected = np.mean(seams) / np.mean(steps)
    assert long_video.seam_ratio(video, [5, 9]) == pytest.approx(expected)


GOOD = RNG.uniform(size=(2, 9, 12, 12, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "video, message",
    (
        (GOOD * 255, "looks 0..255; divide by 255"),
        ((GOOD * 255).astype(np.uint8), "are bytes, 0..255; divide by 255"),
        (GOOD * 2 - 1, r"looks \[-1, 1\]; add 1 and halve"),
        (GOOD / 255, "bytes seem divided by 255 twice"),
        (GOOD * 1000, "of no known kind"),
        (np.where(GOOD > 0.9, np.nan, GOOD), "values that are not finite"),
        (GOOD[0], r"they must be \[b f h w 3\]"),
        (GOOD[:, :4], "have 4 frames; this measure needs 9 or more"),
        ([GOOD[0], GOOD[1, :, :8]], "are of mixed sizes"),
        (GOOD[:0], "there is nothing in them"),
        (GOOD > 0.5, "are bool; they must be floating point"),
        ((GOOD > 0.5).astype(int), "are int64; they must be floating point"),
        ((GOOD > 0.5).astype(str), "they must be floating point"),
    ),
)
def test_wrong_clips_are_named_in_one_line(video, message):
    with pytest.raises(UserError, match=message) as error:
        checks.clips(video, "reference clips", frames=9)
    assert str(error.value).startswith("reference clips: ")
    assert "\n" not in str(error.value)


def test_good_clips_pass_and_pairs_must_be_of_one_size():
    checks.clips(GOOD, frames=9)
    checks.pairs(GOOD, GOOD)
    checks.pairs(list(GOOD), GOOD)
    with pytest.raises(UserError, match="must be of one size"):
        checks.pairs(GOOD, GOOD[:, :, :8])
    with pytest.raises(UserError, match="prepare the reference with --frames=11 --size=64x64"):
        checks.same_size((11, 128, 128), (11, 64, 64))
