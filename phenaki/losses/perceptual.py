"""Perceptual losses of equation 2 on frozen networks (§2.1; docs/paper.md#perceptual-losses).

Products have the precision of the rest of the step. Metrics use the same networks at the highest
precision, which takes six bfloat16 products for one on a TPU.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from phenaki.features import i3d, vgg
from phenaki.types import Video


def image_loss(params: Mapping[str, Any], real: Video, fake: Video) -> Float[Array, ""]:
    """L_IP: the mean LPIPS distance over all frames of clips or images.

    `params` holds those of "vgg16" and "lpips_vgg".
    """
    x, y = (rearrange(video, "b f h w c -> (b f) h w c") for video in (real, fake))
    return vgg.lpips(params, x, y, vgg.VGG16(precision=None)).mean()


def video_loss(
    params: Mapping[str, Any], real: Video, fake: Video, taps: Sequence[str], size: int = i3d.SIZE
) -> Float[Array, ""]:
    """L_VP: the mean over `taps` of the mean squared difference of I3D's features.

    `params` holds those of "i3d", which sees frames of `size` x `size` pixels. Clips need nine
    frames or more. The paper names no layer, so `taps` is a config field.
    """
    network = i3d.I3D(partial(i3d.preprocess, size=size), precision=None)
    both = jnp.concatenate([jax.lax.stop_gradient(real), fake])
    features: Any = network.apply({"params": params["i3d"]}, both, tuple(taps))
    errors = [jnp.square(jnp.subtract(*jnp.split(x, 2))).mean() for x in features.values()]
    return jnp.stack(errors).mean()


def terms(
    weights: Mapping[str, float], features: Mapping[str, Any], frames: int
) -> dict[str, Callable]:
    """L_IP and L_VP by name, those that have a weight: (params, real, fake) -> scalar or None.

    `weights` is `config.loss` and `features` is `config.features`, of clips of so many `frames`.

    Raises:
        UserError: I3D has no such layers of such clips.
    """
    found: dict[str, Callable] = {}
    if weights["perceptual"]:
        found["perceptual"] = image_loss
    if weights["video_perceptual"]:
        seen = tuple(features["i3d"]), features.get("i3d_size", i3d.SIZE)
        if frames > 1:
            i3d.check(frames, *seen)
        found["video_perceptual"] = partial(_of_clips, *seen)
    return found


def _of_clips(taps, size, params, real, fake):
    """L_VP, None for images: an image has no motion (docs/paper.md#image-losses)."""
    return None if real.shape[1] == 1 else video_loss(params, real, fake, taps, size)
