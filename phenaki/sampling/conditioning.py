"""Conditioning: maps known pixels to known tokens (prediction, inpainting, interpolation).

The tokenizer's `receptive_field` (`phenaki.models.tokenizer`) says which pixels a token depends on.
C-ViViT attends to all of a frame and to the frames before it (§2.1): token (t, m, n) is known only
if *every* pixel of the frames of latents 0 .. t is.
"""

import dataclasses
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float

from phenaki.errors import UserError
from phenaki.sampling.given import as_array, frames
from phenaki.sampling.windows import check_clips
from phenaki.types import VideoSpec

BY_PATCH = "patch"  # the approximation: a token is known if the pixels of its own patch are


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of each clip of a batch; f is 1 + a multiple of the temporal patch."""

    video: Float[np.ndarray, "b f h w 3"]  # finite at unknown pixels, too
    pixels: Bool[np.ndarray, "b f h w"]  # returned as they are
    tokens: Bool[np.ndarray, "b t m n"]
    frames: int  # to return: the last frames of `video` may only complete a patch


def prepare(
    video: np.ndarray | None, known: np.ndarray, batch: int, spec: VideoSpec, receptive_field: str
) -> Known:
    """The checked conditioning of `batch` samples.

    Args:
        video: [b f h w 3] in [0, 1], anything at unknown pixels; None where nothing is known.
        known: bool, of pixels [f h w] or tokens [t m n], with a batch axis in front where samples
            differ.
        batch: number of samples.
        spec: of the model.
        receptive_field: of the tokenizer, or `BY_PATCH`.

    Raises:
        UserError: shapes or types do not fit, or known pixels would be ignored because no token
            is known by them.
    """
    known = np.asarray(known)
    if known.dtype != bool or known.ndim not in (3, 4):
        raise UserError(
            f"known is {known.dtype} {known.shape}; it must be bool, of pixels [f h w] or tokens "
            "[t m n], with a batch axis in front where samples differ."
        )
    if known.ndim == 4 and len(known) not in (1, batch):
        raise UserError(f"known is of {len(known)} samples, but there are {batch} prompts.")
    known = np.broadcast_to(known, (batch, *known.shape[-3:]))
    if video is not None:
        video = as_array(video)
        of_pixels = known.shape == video.shape[:-1]
        video = check_size(video, spec, known if of_pixels else None)
        if len(video) != batch:
            raise UserError(f"{len(video)} videos and {batch} prompts: give one of each a sample.")
    if known.shape[2:] == spec.grid(1)[1:] and (video is None or _of_tokens(known, video)):
        return _by_tokens(video, known, spec)
    if known.shape[2:] != (spec.height, spec.width):
        raise UserError(
            f"known is {known.shape}; its last axes must be the {spec.height}x{spec.width} pixels "
            f"or the {'x'.join(map(str, spec.grid(1)[1:]))} tokens of a frame."
        )
    return _by_pixels(video, known, spec, receptive_field)


def first_frames(
    video: np.ndarray | None, spec: VideoSpec
) -> tuple[np.ndarray | None, Bool[np.ndarray, "f h w"]]:
    """(clips, known pixels) for `prepare`: clips of the model's length that start with `video`.

    `video` is [b k h w 3]; None where nothing is known.
    """
    if video is None:
        return None, np.zeros((spec.frames, spec.height, spec.width), bool)
    check_clips(spec)
    video = check_size(video, spec)
    rest = max(spec.frames - video.shape[1], 0)
    known = np.pad(np.ones(video.shape[1:4], bool), ((0, rest), (0, 0), (0, 0)))
    return np.pad(video, ((0, 0), (0, rest), (0, 0), (0, 0), (0, 0))), known


def check_size(
    video: np.ndarray, spec: VideoSpec, known: np.ndarray | None = None
) -> Float[np.ndarray, "b f h w 3"]:
    """`video` as float32; `UserError` for another height or width, or values outside [0, 1].

    Values where a mask of pixels, `known` [b f h w], is False do not matter.
    """
    array = as_array(video)
    if array.ndim != 5 or array.shape[2:] != (spec.height, spec.width, 3):
        raise UserError(
            f"given frames are {array.shape}; they must be [b f {spec.height} {spec.width} 3]."
        )
    return frames(video, known)


def known_tokens(
    known: Bool[np.ndarray, "b f h w"], patch: tuple[int, int, int], receptive_field: str
) -> Bool[np.ndarray, "b t m n"]:
    """True at the tokens of which every pixel that they depend on is `known`.

    These are the pixels of the token's own "patch", of its "frame" (all frames of its latent), of
    that and all frames before it ("past"), or of the whole "clip".
    """
    time, *space = patch
    sizes = dict(zip("pq", space, strict=True))
    first: Any = rearrange(known[:, :1], "b 1 (m p) (n q) -> b 1 m n (p q)", **sizes).all(-1)
    rest: Any = known[:, 1:]
    rest = rearrange(rest, "b (t s) (m p) (n q) -> b t m n (s p q)", s=time, **sizes).all(-1)
    by_patch: Any = np.concatenate([first, rest], axis=1)
    if receptive_field == BY_PATCH:
        return by_patch
    by_latent = by_patch.all((2, 3))
    if receptive_field == "past":
        by_latent = np.logical_and.accumulate(by_latent, axis=1)
    elif receptive_field == "clip":
        by_latent = np.repeat(by_latent.all(1, keepdims=True), by_latent.shape[1], axis=1)
    return np.broadcast_to(by_latent[:, :, None, None], by_patch.shape)


def stand_in(
    video: Float[np.ndarray, "b f h w 3"], known: Bool[np.ndarray, "b f h w"]
) -> Float[np.ndarray, "b f h w 3"]:
    """`video` with plausible values at unknown pixels, for an encoder that sees them.

    In this order: the last known value of the same pixel, its next known value, the mean colour of
    all known pixels of the clip, gray.
    """
    index = np.arange(video.shape[1])[:, None, None]
    # For every pixel, the frames in which it was last known and will next be known.
    before = np.maximum.accumulate(np.where(known, index, -1), axis=1)
    later = np.where(known, index, video.shape[1])
    after = np.minimum.accumulate(later[:, ::-1], axis=1)[:, ::-1]
    source = np.where(before >= 0, before, after)
    ever = source < video.shape[1]
    held = np.take_along_axis(video, np.where(ever, source, 0)[..., None], axis=1)
    count = known.sum((1, 2, 3))[:, None]
    total = np.where(known[..., None], video, 0).sum((1, 2, 3))
    mean = np.where(count, total / np.maximum(count, 1), 0.5)
    return np.where(ever[..., None], held, mean[:, None, None, None]).astype(np.float32)


def _of_tokens(known, video):
    # With patches of one pixel, frames have as many tokens as pixels: the lengths differ.
    return known.shape[2:] != video.shape[2:4] or known.shape[1] != video.shape[1]


def _by_tokens(video, known, spec):
    frames = 1 + (known.shape[1] - 1) * spec.patch[0]
    spec.grid(frames)  # checks the length
    size = (len(known), frames, spec.height, spec.width)
    if video is None:
        if known.any():
            raise UserError("known marks tokens, but there is no video they come from.")
        video = np.zeros((*size, 3), np.float32)
    if video.shape[1] != frames:
        raise UserError(
            f"known has {known.shape[1]} latents and video {video.shape[1]} frames; they belong to "
            f"{frames}."
        )
    # No pixel is returned as it is: a decoder sees the tokens around a known one.
    return Known(video, np.zeros(size, bool), known, frames)


def _by_pixels(video, known, spec, receptive_field):
    frames, time = known.shape[1], spec.patch[0]
    if video is None and known.any():
        raise UserError("known marks pixels, but there is no video they come from.")
    if video is None:
        video = np.zeros((*known.shape, 3), np.float32)
    if video.shape[1] != frames:
        raise UserError(f"known is of {frames} frames, the video has {video.shape[1]}.")
    # 16 frames are not 1 + 2n: 17 are filled, 16 returned (docs/paper.md#sixteen-frames).
    extra = -(frames - 1) % time
    if frames + extra > spec.frames:
        raise UserError(
            f"known is of {frames} frames; one clip has at most {spec.frames}: use `extend` or "
            "`story` for longer videos."
        )
    known = np.pad(known, ((0, 0), (0, extra), (0, 0), (0, 0)))
    # Unknown pixels may hold anything, also NaN, and must not reach the encoder.
    video = np.pad(video, ((0, 0), (0, extra), (0, 0), (0, 0), (0, 0)))
    video = np.where(known[..., None], video, np.float32(0))
    tokens = known_tokens(known, spec.patch, receptive_field)
    if receptive_field == BY_PATCH:
        return Known(stand_in(video, known), known, tokens, frames)
    _check_all_used(known, tokens, spec, receptive_field)
    return Known(video, known, tokens, frames)


def _check_all_used(known, tokens, spec, receptive_field):
    """Raises if known pixels lie outside the frames of known tokens: they would be ignored."""
    time = spec.patch[0]
    used = np.concatenate([tokens[:, :1, 0, 0], tokens[:, 1:, 0, 0].repeat(time, axis=1)], axis=1)
    ignored = (known.any((2, 3)) & ~used).any(0)
    if not ignored.any():
        return
    frame = int(np.flatnonzero(ignored)[0])
    rule = {
        "frame": "all pixels of its frame are",
        "past": "all pixels of its frames and of all frames before them are",
        "clip": "all pixels of the clip are",
    }[receptive_field]
    # The usual mistake is a prefix of the wrong length: name the nearest one.
    # Not all frames are wholly known, or the clip would be: argmin finds the first that is not.
    prefix = int(known.all((0, 2, 3)).argmin())
    nearest = ""
    if receptive_field == "past" and prefix > 0 and not known[:, prefix:].any():
        nearest = f" Nearest: the first {spec.nearest_frames(prefix)} frames."
    raise UserError(
        f"known: pixels of frame {frame} are known, but none of its tokens is: with this tokenizer "
        f"a token is known only if {rule}, in steps of 1 + n·{time} frames.{nearest} "
        "approximate=True goes by each token's own pixels instead."
    )
