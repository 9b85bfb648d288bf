"""What is known of a clip, and which codes that fixes: every task of the model is such a mask.

The tokenizer's `receptive_field` (`phenaki.models.tokenizer`) says which pixels a token depends on.
C-ViViT attends to all of a frame and then to what came before (§2.1): token (t, m, n) is known
only if *every* pixel of the frames of latents 0 .. t is.
"""

import dataclasses
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float

from phenaki.errors import UserError
from phenaki.types import VideoSpec

BY_PATCH = "patch"  # the approximation: a code is known if its own pixels are


@dataclasses.dataclass(frozen=True)
class Given:
    """What a call of `Phenaki.fill` starts from; f is 1 + a multiple of the patch."""

    video: Float[np.ndarray, "b f h w 3"]  # something at unknown pixels, too
    pixels: Bool[np.ndarray, "b f h w"]  # those that are returned as they are
    tokens: Bool[np.ndarray, "b t m n"]
    frames: int  # asked for: the last ones of `video` may be there for the patch alone


def lift(
    known: Bool[np.ndarray, "b f h w"], patch: tuple[int, int, int], sees: str
) -> Bool[np.ndarray, "b t m n"]:
    """The codes of which every pixel that they depend on is `known`.

    `sees` says which those are: those of the code's "patch", of its "frame" (all frames of its
    latent), of that and its "past", or of the whole "clip".
    """
    time, *space = patch
    sizes = dict(zip("pq", space, strict=True))
    first: Any = rearrange(known[:, :1], "b 1 (m p) (n q) -> b 1 m n (p q)", **sizes).all(-1)
    rest: Any = known[:, 1:]
    rest = rearrange(rest, "b (t s) (m p) (n q) -> b t m n (s p q)", s=time, **sizes).all(-1)
    own: Any = np.concatenate([first, rest], axis=1)
    if sees == BY_PATCH:
        return own
    whole = own.all((2, 3))
    if sees == "past":
        whole = np.logical_and.accumulate(whole, axis=1)
    elif sees == "clip":
        whole = np.repeat(whole.all(1, keepdims=True), whole.shape[1], axis=1)
    return np.broadcast_to(whole[:, :, None, None], own.shape)


def stand_in(
    video: Float[np.ndarray, "b f h w 3"], known: Bool[np.ndarray, "b f h w"]
) -> Float[np.ndarray, "b f h w 3"]:
    """`video` with something plausible at unknown pixels, for an encoder that sees them.

    That is the last known value of the same pixel, else its next one, else the mean colour of all
    that is known, else gray.
    """
    index = np.arange(video.shape[1])[:, None, None]
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


def read(video, known, batch: int, spec: VideoSpec, sees: str) -> Given:
    """Checks what was given for `batch` samples: pixels or codes, as `Phenaki.fill` says."""
    known = np.asarray(known)
    if known.dtype != bool or known.ndim not in (3, 4):
        raise UserError(
            f"known is {known.dtype} {known.shape}; it must be bool, of pixels [f h w] or codes "
            "[t m n], with a batch axis in front where samples differ."
        )
    if known.ndim == 4 and len(known) not in (1, batch):
        raise UserError(f"known is of {len(known)} samples, but there are {batch} prompts.")
    known = np.broadcast_to(known, (batch, *known.shape[-3:]))
    if video is not None:
        video = frames(video, spec)
        if len(video) != batch:
            raise UserError(f"{len(video)} videos and {batch} prompts: pass one of each a sample.")
    if known.shape[2:] == spec.grid(1)[1:] and (video is None or _of_tokens(known, video, spec)):
        return _codes(video, known, spec)
    if known.shape[2:] != (spec.height, spec.width):
        raise UserError(
            f"known is {known.shape}; its last axes must be the {spec.height}x{spec.width} pixels "
            f"or the {'x'.join(map(str, spec.grid(1)[1:]))} codes of a frame."
        )
    return _pixels(video, known, spec, sees)


def frames(video, spec: VideoSpec) -> Float[np.ndarray, "b f h w 3"]:
    """`video` as float32, of the model's size."""
    video = np.asarray(video, np.float32)
    if video.ndim != 5 or video.shape[2:] != (spec.height, spec.width, 3):
        raise UserError(
            f"given frames are {video.shape}; they must be [b f {spec.height} {spec.width} 3]."
        )
    return video


def _of_tokens(known, video, spec):
    # Patches of one pixel: the same plane either way, told apart by time.
    return known.shape[2:] != video.shape[2:4] or known.shape[1] != video.shape[1]


def _codes(video, known, spec):
    frames = 1 + (known.shape[1] - 1) * spec.patch[0]
    spec.grid(frames)
    size = (len(known), frames, spec.height, spec.width)
    if video is None:
        if known.any():
            raise UserError("known has codes that stand, but there is no video they come from.")
        video = np.zeros((*size, 3), np.float32)
    if video.shape[1] != frames:
        raise UserError(
            f"known has {known.shape[1]} latents and video {video.shape[1]} frames; they belong to "
            f"{frames}."
        )
    # No pixel is certain: a decoder sees the codes around a known one.
    return Given(video, np.zeros(size, bool), known, frames)


def _pixels(video, known, spec, sees):
    frames, time = known.shape[1], spec.patch[0]
    if video is None and known.any():
        raise UserError("known has pixels, but there is no video they come from.")
    if video is None:
        video = np.zeros((*known.shape, 3), np.float32)
    if video.shape[1] != frames:
        raise UserError(f"known is of {frames} frames, the video has {video.shape[1]}.")
    # 16 frames are not 1 + 2n: 17 are filled, 16 returned (docs/paper.md#sixteen-frames).
    extra = -(frames - 1) % time
    if frames + extra > spec.frames:
        raise UserError(
            f"known is of {frames} frames; one clip has at most {spec.frames}: `extend` and "
            "`story` go on from there."
        )
    known = np.pad(known, ((0, 0), (0, extra), (0, 0), (0, 0)))
    # Unknown pixels may hold anything, also NaN, and must not reach the encoder.
    video = np.pad(video, ((0, 0), (0, extra), (0, 0), (0, 0), (0, 0)))
    video = np.where(known[..., None], video, np.float32(0))
    tokens = lift(known, spec.patch, sees)
    if sees == BY_PATCH:
        return Given(stand_in(video, known), known, tokens, frames)
    _all_used(known, tokens, spec, sees)
    return Given(video, known, tokens, frames)


def _all_used(known, tokens, spec, sees):
    """Raises where known pixels lie outside the frames of known codes: they would be ignored."""
    time = spec.patch[0]
    used = np.concatenate([tokens[:, :1, 0, 0], tokens[:, 1:, 0, 0].repeat(time, axis=1)], axis=1)
    idle = (known.any((2, 3)) & ~used).any(0)
    if not idle.any():
        return
    frame = int(np.flatnonzero(idle)[0])
    rule = {
        "frame": "all pixels of its frame are",
        "past": "all pixels of its frames and of all frames before them are",
        "clip": "all pixels of the clip are",
    }[sees]
    # A prefix of the wrong length is the usual case, and has a usual answer.
    whole = known.all((0, 2, 3))
    prefix = int(whole.argmin())  # not all frames are whole: the rest of the clip would be, too
    nearest = ""
    if sees == "past" and prefix > 0 and not known[:, prefix:].any():
        nearest = f" Nearest: the first {spec.nearest_frames(prefix)} frames."
    raise UserError(
        f"known: pixels of frame {frame} are known, but none of its codes is: with this tokenizer "
        f"one is known only if {rule}, in steps of 1 + n·{time} frames.{nearest} approximate=True "
        "goes by each code's own pixels instead."
    )
