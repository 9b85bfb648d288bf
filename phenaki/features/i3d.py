"""I3D, the inflated Inception-v1 of Kinetics-400 behind FVD and the video perceptual loss (§2.1).

Parameters carry the names of MAGVIT's public Flax file, of which this is the network:
    Conv3d_1a_7x7/conv_3d/kernel                                [time, height, width, in, out]
    Mixed_3b/Branch_0.Conv3d_0a_1x1/batch_norm/{beta,moving_mean,moving_variance}
    Logits.Conv3d_0c_1x1/conv_3d/{kernel,bias}
float32 throughout, on every device, unless a loss asks for less: features in bfloat16 would shift
FVD.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from phenaki.blocks.conv3d import StridedConv
from phenaki.errors import UserError
from phenaki.features.i3d_names import convert as convert
from phenaki.features.resize import legacy_bilinear
from phenaki.types import Video

CLASSES = 400
SIZE = 224
POOL = (2, 7, 7)  # frames, rows and columns that are averaged before the logits
LEAST_POOLED = 193  # halved five times, an axis has the seven rows of POOL
MIN_FRAMES = 9  # time is halved three times, and two of the steps that are left are averaged


class BatchNorm(nn.Module):
    """Normalisation by stored statistics; this network has no scale (gamma)."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        shape = x.shape[-1:]
        beta = self.param("beta", nn.initializers.zeros_init(), shape)
        mean = self.param("moving_mean", nn.initializers.zeros_init(), shape)
        variance = self.param("moving_variance", nn.initializers.ones_init(), shape)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-3) + beta


def conv(features: int, kernel=(1, 1, 1), strides=(1, 1, 1), bias: bool = False) -> nn.Module:
    """The convolution of a unit, with SAME padding."""
    # XLA's SAME is TensorFlow's rule: with strides, an odd size is padded behind.
    kind = nn.Conv if strides == (1, 1, 1) else StridedConv
    return kind(
        features,
        kernel,
        strides,
        use_bias=bias,
        kernel_init=nn.initializers.he_normal(),
        name="conv_3d",
    )


class Unit3D(nn.Module):
    """Convolution without bias, normalisation, ReLU."""

    features: int
    kernel: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b u i j d"]:
        return nn.relu(
            BatchNorm(name="batch_norm")(conv(self.features, self.kernel, self.strides)(x))
        )


class MaxPool(nn.Module):
    """Max pooling with SAME padding, which is -inf."""

    window: tuple[int, int, int]
    strides: tuple[int, int, int]

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b u i j c"]:
        return nn.max_pool(x, self.window, self.strides, "SAME")


class Mixed(nn.Module):
    """An inception block: four concatenated branches; `widths` are those of the units in order."""

    widths: tuple[int, int, int, int, int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w d"]:
        one, two_in, two, three_in, three, four = self.widths
        cube = (3, 3, 3)
        branch_0 = Unit3D(one, name="Branch_0.Conv3d_0a_1x1")(x)
        branch_1 = Unit3D(two_in, name="Branch_1.Conv3d_0a_1x1")(x)
        branch_1 = Unit3D(two, cube, name="Branch_1.Conv3d_0b_3x3")(branch_1)
        branch_2 = Unit3D(three_in, name="Branch_2.Conv3d_0a_1x1")(x)
        branch_2 = Unit3D(three, cube, name="Branch_2.Conv3d_0b_3x3")(branch_2)
        branch_3 = Unit3D(four, name="Branch_3.Conv3d_0b_1x1")(MaxPool(cube, (1, 1, 1))(x))
        return jnp.concatenate([branch_0, branch_1, branch_2, branch_3], axis=-1)


class Logits(nn.Module):
    """Logits of the Kinetics-400 classes at every position."""

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w k"]:
        return conv(CLASSES, bias=True)(x)


STAGES: dict[str, Callable[..., nn.Module]] = {
    "Conv3d_1a_7x7": partial(Unit3D, 64, (7, 7, 7), (2, 2, 2)),
    "MaxPool3d_2a_3x3": partial(MaxPool, (1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": partial(Unit3D, 64),
    "Conv3d_2c_3x3": partial(Unit3D, 192, (3, 3, 3)),
    "MaxPool3d_3a_3x3": partial(MaxPool, (1, 3, 3), (1, 2, 2)),
    "Mixed_3b": partial(Mixed, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": partial(Mixed, (128, 128, 192, 32, 96, 64)),
    "MaxPool3d_4a_3x3": partial(MaxPool, (3, 3, 3), (2, 2, 2)),
    "Mixed_4b": partial(Mixed, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": partial(Mixed, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": partial(Mixed, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": partial(Mixed, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": partial(Mixed, (256, 160, 320, 32, 128, 128)),
    "MaxPool3d_5a_2x2": partial(MaxPool, (2, 2, 2), (2, 2, 2)),
    "Mixed_5b": partial(Mixed, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": partial(Mixed, (384, 192, 384, 48, 128, 128)),
}
TAPS = (*STAGES, "pool_mean", "logits_mean")


def preprocess(
    video: Video, resize: Callable = legacy_bilinear, size: int = SIZE
) -> Float[Array, "b f s s c"]:
    """[0, 1] at any size to [-1, 1] at `size` x `size`. FVD is of 224, by TF1's legacy bilinear."""
    frames = resize(rearrange(video, "b f h w c -> (b f) h w c"), (size, size))
    return 2 * rearrange(frames, "(b f) h w c -> b f h w c", b=video.shape[0]) - 1


class I3D(nn.Module):
    """Named activations of clips of at least nine frames.

    `preprocess` maps pixels in [0, 1] to what the network sees. `precision` is that of the
    convolutions, None the program's own: TPUs, and GPUs with TF32, round float32 inputs by default.
    """

    preprocess: Callable[..., Array] = preprocess
    precision: str | None = "highest"

    @nn.compact
    def __call__(
        self, video: Video, taps: tuple[str, ...] = ("logits_mean",)
    ) -> dict[str, Float[Array, "..."]]:
        """`video` [b f h w 3] in [0, 1] -> {tap: array}; nothing deeper than the taps is computed.

        A stage's tap is [b t m n d]; "pool_mean" [b 1024] and "logits_mean" [b 400], FVD's
        features, are means over time. Raises UserError below nine frames and for an unknown tap.
        """
        precision = jax.default_matmul_precision(self.precision) if self.precision else None
        with precision or nullcontext():
            x = self.preprocess(video.astype(jnp.float32))
            check(video.shape[1], taps, min(x.shape[2:4]))
            return self._activations(x, taps)

    def _activations(self, x, taps):
        found, missing = {}, set(taps)
        for name, stage in STAGES.items():
            if not missing:
                break
            x = stage(name=name)(x)
            if name in missing:
                found[name] = x
                missing.remove(name)
        if missing:
            x = nn.avg_pool(x, POOL, padding="VALID")
            logits = Logits(name="Logits.Conv3d_0c_1x1")(x)
            found |= {"pool_mean": x.mean((1, 2, 3)), "logits_mean": logits.mean((1, 2, 3))}
        return {name: found[name] for name in taps}


def check(frames: int, taps: Iterable[str], size: int = SIZE) -> None:
    """Raises `UserError` if clips of so many frames, seen at `size` px, do not have all `taps`."""
    if frames < MIN_FRAMES:
        raise UserError(
            f"I3D was given clips of {frames} frames: it needs {MIN_FRAMES} or more (FVD and the "
            "video perceptual loss are undefined below)."
        )
    for tap in taps:
        if tap not in TAPS:
            raise UserError(f"I3D has no tap {tap!r}: choose from {', '.join(TAPS)}.")
        if tap not in STAGES and size < LEAST_POOLED:
            raise UserError(
                f"config.features.i3d_size={size}: must be {LEAST_POOLED} to {SIZE} for {tap}; or "
                "name a layer before it in config.features.i3d, such as Mixed_4f."
            )
