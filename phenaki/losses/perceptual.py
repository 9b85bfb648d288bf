"""Perceptual losses of equation 2 on frozen networks (§2.1; docs/paper.md#perceptual-losses).

Products have the precision of the rest of the step. Metrics use the same networks at the highest
precision, which takes six bfloat16 products for one on a TPU.
"""

from collections.abc import Mapping, Sequence
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
