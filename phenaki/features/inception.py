"""The Inception-v3 of 2015 whose pooled features FID is defined on.

It is the network of TensorFlow's inception-2015-12-05 graph; parameters are named as in its PyTorch
port, pytorch-fid. From torchvision's it differs in 1008 classes, average pools that leave the
padding out of the mean, and a max pool in the last block.
Shapes: b images, h w pixels, c channels. Everything is float32.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from phenaki.features.inception_blocks import BLOCKS, STEM, Branches, ConvSpec, Layers
from phenaki.features.resize import legacy_bilinear
from phenaki.features.torch_names import from_torch, shapes_of

SIZE = 299  # pixels a side that the network was trained on
CLASSES = 1008
BATCH_NORM_EPSILON = 1e-3
TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class InceptionOutputs(NamedTuple):
    """Pooled features and logits of b images."""

    pool: Float[Array, "b 2048"]  # "pool_3", the features of FID
    logits: Float[Array, "b 1008"]  # with bias; the Inception score of arXiv 1606.03498 has none


class BatchNorm(nn.Module):
    """Normalisation by stored statistics."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        def param(name, init):
            return self.param(name, init, x.shape[-1:])

        scale, bias = param("scale", nn.initializers.ones), param("bias", nn.initializers.zeros)
        mean, var = param("mean", nn.initializers.zeros), param("var", nn.initializers.ones)
        return (x - mean) * (jax.lax.rsqrt(var + BATCH_NORM_EPSILON) * scale) + bias


class ConvUnit(nn.Module):
    """Convolution without bias, normalisation and ReLU, as `spec` describes them."""

    spec: ConvSpec

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b m n d"]:
        spec = self.spec
        conv = nn.Conv(
            spec.features,
            spec.kernel,
            (spec.stride, spec.stride),
            spec.padding,
            use_bias=False,
            precision=jax.lax.Precision.HIGHEST,  # by default TPUs would round to bfloat16
            kernel_init=nn.initializers.he_normal(),
            name="conv",
        )
        return nn.relu(BatchNorm(name="bn")(conv(x)))


def run(layers: Layers, x: Float[Array, "b h w c"]) -> Float[Array, "b m n d"]:
    """Applies the layers of a branch; called inside a module, whose submodules they become."""
    for layer in layers:
        if isinstance(layer, ConvSpec):
            x = ConvUnit(layer, name=layer.name)(x)
        elif isinstance(layer, tuple):
            x = jnp.concatenate([run((side,), x) for side in layer], axis=-1)
        else:
            x = layer(x)
    return x


class Mixed(nn.Module):
    """Concatenates branches over channels."""

    branches: Branches

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b m n d"]:
        return jnp.concatenate([run(branch, x) for branch in self.branches], axis=-1)


class Inception(nn.Module):
    """The network without its preprocessing: [b h w 3] in [-1, 1] -> `InceptionOutputs`.

    Fully convolutional up to the mean over space: made for 299x299, it works from 75x75 on.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> InceptionOutputs:
        x = run(STEM, x)
        for name, branches in BLOCKS.items():
            x = Mixed(branches, name=name)(x)
        pool = x.mean((1, 2))
        logits = nn.Dense(CLASSES, precision=jax.lax.Precision.HIGHEST, name="fc")(pool)
        return InceptionOutputs(pool, logits)


def preprocess(
    pixels: Float[Array, "b h w 3"], resize: Callable = legacy_bilinear
) -> Float[Array, "b 299 299 3"]:
    """Pixels in [0, 1] of any size to [-1, 1] at 299x299.

    The graph of 2015 resizes by TensorFlow 1's rule, the default; pytorch-fid by `bilinear`, other
    tools with antialiasing. Report the rule with the score.
    """
    return 2 * resize(pixels, (SIZE, SIZE)) - 1


def features(
    params: Mapping[str, Any],
    pixels: Float[Array, "b h w 3"],
    resize: Callable = legacy_bilinear,
) -> InceptionOutputs:
    """The network's outputs for images in [0, 1] of any size.

    `resize` is one of `phenaki.features.resize`.
    """
    found: Any = Inception().apply({"params": params}, preprocess(pixels, resize))
    return found


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters of `Inception` from pytorch-fid's state dict."""
    shapes = shapes_of(Inception(), jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32))
    return from_torch(tensors, shapes, torch_name, dropped=r".*\.num_batches_tracked$")


def torch_name(path: str) -> str:
    """pytorch-fid's name of a parameter: the same path with PyTorch's leaf names."""
    *parents, leaf = path.split("/")
    return ".".join((*parents, TORCH_LEAVES[leaf]))
