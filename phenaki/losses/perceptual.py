"""The perceptual terms of equation 2, on frozen networks (§2.1; docs/paper.md#perceptual-losses).

Their products have the precision of the rest of the step. Metrics ask the same networks for the
highest, which on a TPU takes six products for one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from phenaki.features import i3d, vgg
from phenaki.types import Video


def image_loss(params: Mapping[str, Any], real: Video, fake: Video) -> Float[Array, ""]:
    """L_IP: the mean LPIPS distance over all frames; one frame or many, images or video.

    `params` has "vgg16" and "lpips_vgg".
    """
    x, y = (rearrange(video, "b f h w c -> (b f) h w c") for video in (real, fake))
    return vgg.lpips(params, x, y, vgg.VGG16(precision=None)).mean()


def video_loss(
    params: Mapping[str, Any], real: Video, fake: Video, taps: Sequence[str]
) -> Float[Array, ""]:
    """L_VP: the mean over `taps` of the mean squared difference of I3D's features.

    `params` has "i3d". The paper names no layer; for clips of nine frames or more.
    """
    network = i3d.I3D(precision=None)
    both = jnp.concatenate([jax.lax.stop_gradient(real), fake])
    features: Any = network.apply({"params": params["i3d"]}, both, tuple(taps))
    errors = [jnp.square(jnp.subtract(*jnp.split(x, 2))).mean() for x in features.values()]
    return jnp.stack(errors).mean()
