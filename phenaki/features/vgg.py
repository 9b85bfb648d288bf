"""VGG16 and LPIPS v0.1 on top of it: the image perceptual loss L_IP (§2.1) and the metric.

The paper cites perceptual losses on VGG features, and LPIPS; LPIPS on VGG16 satisfies both
(docs/paper.md#perceptual-losses).
Shapes: b images, h w pixels, c channels. Everything is float32.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phenaki.errors import UserError
from phenaki.features.torch_names import from_torch, shapes_of

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# ImageNet's, for pixels in [0, 1]. LPIPS' scaling layer is the same written for [-1, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MIN_SIZE = 16  # pixels a side: smaller maps have no pixel after the four poolings

Taps = tuple[Float[Array, "b _ _ _"], ...]


class VGG16(nn.Module):
    """The convolutions of VGG16 (configuration D of arXiv 1409.1556).

    pixels [b h w 3] in [0, 1] -> the outputs of relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3:
    [b h w 64], [b h/2 w/2 128], ... [b h/16 w/16 512], odd sizes rounded down. `precision` is that
    of the convolutions: by default TPUs, and GPUs with TF32, would round float32 inputs.
    """

    precision: Any = jax.lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Taps:
        if min(pixels.shape[1:3]) < MIN_SIZE:
            raise UserError(
                f"frames of {pixels.shape[1]}x{pixels.shape[2]} px are too small for VGG16 "
                f"features: at least {MIN_SIZE}x{MIN_SIZE}."
            )
        x = (pixels - jnp.asarray(MEAN)) / jnp.asarray(STD)
        taps = []
        for stage, widths in enumerate(STAGES):
            if stage:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for index, width in enumerate(widths):
                x = nn.relu(
                    nn.Conv(
                        width,
                        (3, 3),
                        precision=self.precision,
                        kernel_init=nn.initializers.he_normal(),
                        name=f"conv{stage + 1}_{index + 1}",
                    )(x)
                )
            taps.append(x)
        return tuple(taps)


class LPIPSHeads(nn.Module):
    """Σ_layers mean_space w · (x̂ - ŷ)², with x̂, ŷ of unit length over channels (LPIPS v0.1).

    Two sets of taps -> distance [b]. The learned weights w [c] per layer are non-negative.
    """

    @nn.compact
    def __call__(self, x: Taps, y: Taps) -> Float[Array, " b"]:
        total = jnp.zeros(x[0].shape[0])
        for index, (a, b) in enumerate(zip(x, y, strict=True)):
            head = nn.Conv(
                1,
                (1, 1),
                use_bias=False,
                precision=jax.lax.Precision.HIGHEST,
                kernel_init=nn.initializers.uniform(1.0),
                name=f"lin{index}",
            )
            total += head(jnp.square(_unit(a) - _unit(b))).mean((1, 2, 3))
        return total


def _unit(x):
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # Where every channel is 0, sqrt has no finite slope: norm and gradient are 0 there.
    norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return x / (norm + 1e-10)


NETWORK = VGG16()


def features(params: Mapping[str, Any], pixels: Float[Array, "b h w 3"]) -> Taps:
    """The five taps of VGG16 with `params`, for pixels in [0, 1]."""
    taps: Any = NETWORK.apply({"params": params}, pixels)
    return taps


def lpips(
    params: Mapping[str, Any],
    x: Float[Array, "b h w 3"],
    y: Float[Array, "b h w 3"],
    network: VGG16 = NETWORK,
) -> Float[Array, " b"]:
    """LPIPS distance of each pair of images in [0, 1]; 0 for equal ones.

    `params` holds the two parts by their names in `phenaki.features.weights`: "vgg16" and
    "lpips_vgg". A loss may give a `network` of lower precision.
    """
    taps = [network.apply({"params": params["vgg16"]}, image) for image in (x, y)]
    distance: Any = LPIPSHeads().apply({"params": params["lpips_vgg"]}, *taps)
    return distance


def lpips_of_neighbours(
    params: Mapping[str, Any], frames: Float[Array, "f h w 3"]
) -> Float[Array, " f-1"]:
    """`lpips` of every frame and the next, for little more than half of the work."""
    taps: Any = NETWORK.apply({"params": params["vgg16"]}, frames)
    pairs = tuple(tap[:-1] for tap in taps), tuple(tap[1:] for tap in taps)
    distance: Any = LPIPSHeads().apply({"params": params["lpips_vgg"]}, *pairs)
    return distance


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `VGG16` from torchvision's state dict; its classifier is left out."""
    shapes = shapes_of(VGG16(), jax.ShapeDtypeStruct((1, MIN_SIZE, MIN_SIZE, 3), jnp.float32))
    return from_torch(tensors, shapes, torch_name, dropped=r"classifier\.")


def torch_name(path: str) -> str:
    """torchvision's name of a parameter: its layers are numbered, ReLUs and poolings included."""
    layer, leaf = path.split("/")
    stage, index = (int(number) for number in layer.removeprefix("conv").split("_"))
    convolutions = sum(map(len, STAGES[: stage - 1])) + index - 1
    number = 2 * convolutions + stage - 1
    return f"features.{number}.{'weight' if leaf == 'kernel' else leaf}"


def convert_heads(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `LPIPSHeads` from the file of LPIPS v0.1 for VGG."""
    taps = tuple(jax.ShapeDtypeStruct((1, 1, 1, widths[-1]), jnp.float32) for widths in STAGES)
    return from_torch(tensors, shapes_of(LPIPSHeads(), taps, taps), head_torch_name)


def head_torch_name(path: str) -> str:
    """LPIPS' name of a head: layer 1 of a sequence, after a dropout."""
    return path.replace("/kernel", ".model.1.weight")
