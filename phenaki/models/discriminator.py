"""Per-frame discriminators: StyleGAN's with blurred resampling (B.1.1), and StyleGAN2's.

Both score frames with pixels in [0, 1]. They compute in float32 whatever the tokenizer's dtype,
because the R1 penalty differentiates them twice.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phenaki.errors import UserError

SLOPE = 0.2
XAVIER = nn.initializers.xavier_uniform()
GROUP = 4  # clips over which StyleGAN2 takes its standard deviation


class Discriminator(nn.Module):
    """Residual blocks down to a map of 4x4, then two dense layers; no normalisation (B.1.1).

    The paper names it by its flags, blur resampling and a channel multiplier of 1: that is
    `width` 512, the channels of maps up to 32 px. For legal sizes see `channels`.
    """

    width: int

    @nn.compact
    def __call__(self, frames: Float[Array, "b *f h w c"]) -> Float[Array, "b *f"]:
        """One logit per frame, high for real; frames are [b h w c] or whole clips."""
        height, width = frames.shape[-3:-1]
        first, *rest = channels(height, width, self.width)
        x = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32)
        x = _leaky(_conv(first, "conv_in")(x))
        for index, features in enumerate(rest):
            x = DiscriminatorBlock(features, name=f"block_{index}")(x)
        x = _leaky(_conv(self.width, "conv_out")(x))
        x = nn.Dense(self.width, kernel_init=XAVIER, name="hidden")(x.reshape(len(x), -1))
        x = nn.Dense(1, kernel_init=XAVIER, name="logit")(_leaky(x))
        return x.reshape(frames.shape[:-3])


class DiscriminatorBlock(nn.Module):
    """Residual block that halves a map: two 3x3 convolutions, and a 1x1 one as shortcut."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 d"]:
        skip = nn.Conv(self.features, (1, 1), use_bias=False, kernel_init=XAVIER, name="skip")
        y = _leaky(_conv(x.shape[-1], "conv_0")(x))
        y = _leaky(_conv(self.features, "conv_1")(blur(y, pad=1, stride=2)))
        return (y + skip(blur(x, pad=1, stride=2))) * 0.5**0.5


def _conv(features, name):
    return nn.Conv(features, (3, 3), kernel_init=XAVIER, name=name)


def _leaky(x):
    return nn.leaky_relu(x, SLOPE)


def channels(height: int, width: int, most: int) -> list[int]:
    """Channels of each map, from frames of `height` x `width` to one with a side of 4 to 7 px.

    `most` up to 32 px (8 times the last map); above that, half as many with every doubling.

    Raises:
        UserError: frames cannot be halved to a map whose shorter side is 4 to 7 px.
    """
    halvings = max((min(height, width) // 4).bit_length() - 1, 0)
    step = 2**halvings
    if min(height, width) < 4 or height % step or width % step:
        # Rounded down, so that the number of halvings stays the same.
        good = " x ".join(str(max(side // step * step, 4)) for side in (height, width))
        raise UserError(
            f"config.video.height={height}, width={width}: the discriminator halves frames until "
            f"the shorter side is 4 to 7 px, so both must be multiples of {step} and at least 4; "
            f"use {good}."
        )
    return [most >> max(level - 3, 0) for level in range(halvings, -1, -1)]


def blur(x: Float[Array, "b h w c"], *, pad: int, stride: int) -> Float[Array, "b m n c"]:
    """The [1, 3, 3, 1] / 8 filter along rows and columns of a zero-padded map.

    `pad` is the number of zeros on each side, `stride` the step of the output.
    """
    # Shifted sums, not a convolution: exact in float32 on every device, and faster on CPUs.
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for axis in (1, 2):
        last = x.shape[axis] - 4
        a, b, c, d = (
            jax.lax.slice_in_dim(x, k, k + last + 1, stride=stride, axis=axis) for k in range(4)
        )
        x = (a + d) * 0.125 + (b + c) * 0.375
    return x


class StyleGAN2Discriminator(nn.Module):
    """StyleGAN2's (Karras et al. 2020, appendix B): equalised learning rates, minibatch deviation.

    `width` is that of `Discriminator`.
    """

    width: int

    @nn.compact
    def __call__(self, frames: Float[Array, "b *f h w c"]) -> Float[Array, "b *f"]:
        """One logit per frame, high for real; frames are [b h w c] or whole clips."""
        height, width = frames.shape[-3:-1]
        first, *rest = channels(height, width, self.width)
        x = frames.reshape(-1, *frames.shape[-3:]).astype(jnp.float32)
        x = _scaled_leaky(EqualizedConv(first, (1, 1), name="conv_in")(x))
        for index, features in enumerate(rest):
            x = StyleGAN2Block(features, name=f"block_{index}")(x)
        x = append_deviation(x.reshape(len(frames), -1, *x.shape[1:]))
        x = x.reshape(-1, *x.shape[2:])
        x = _scaled_leaky(EqualizedConv(self.width, (3, 3), name="conv_out")(x))
        whole = (x.shape[1], x.shape[2])
        x = EqualizedConv(self.width, whole, padding="VALID", name="hidden")(x)  # a dense layer
        x = EqualizedConv(1, (1, 1), name="logit")(_scaled_leaky(x))
        return x.reshape(frames.shape[:-3])


class StyleGAN2Block(nn.Module):
    """Residual block that halves a map by a 3x3 convolution of stride 2 after the blur."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 d"]:
        skip = EqualizedConv(self.features, (1, 1), use_bias=False, name="skip")
        halve = EqualizedConv(self.features, (3, 3), stride=2, padding="VALID", name="conv_1")
        y = _scaled_leaky(EqualizedConv(x.shape[-1], (3, 3), name="conv_0")(x))
        y = _scaled_leaky(halve(blur(y, pad=2, stride=1)))
        return (y + skip(blur(x, pad=1, stride=2))) * 0.5**0.5


class EqualizedConv(nn.Module):
    """Convolution with a kernel from N(0, 1), divided by sqrt(fan-in) where it is used.

    Adam then moves every layer at a rate relative to its scale.
    """

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b m n d"]:
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel *= (shape[0] * shape[1] * shape[2]) ** -0.5
        strides = (self.stride, self.stride)
        x = jax.lax.conv_general_dilated(
            x, kernel, strides, self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros_init(), (self.features,))


def _scaled_leaky(x):
    return _leaky(x) * 2**0.5  # the gain keeps the variance


def append_deviation(x: Float[Array, "b f m n c"]) -> Float[Array, "b f m n c+1"]:
    """Appends one channel: the standard deviation over a group of clips, averaged over the map.

    Groups are up to `GROUP` clips, the largest number that divides the batch.
    """
    # Neighbours along the batch are on one device. Frames of one clip are alike, so that their
    # deviation would say little: it is taken over clips, for each frame.
    size = max(size for size in range(1, GROUP + 1) if len(x) % size == 0)
    groups = x.reshape(-1, size, *x.shape[1:])
    deviation = jnp.sqrt(groups.var(axis=1) + 1e-8).mean(axis=(-3, -2, -1))  # [groups f]
    deviation = jnp.repeat(deviation, size, axis=0)[..., None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(deviation, (*x.shape[:-1], 1))], axis=-1)


DISCRIMINATORS: dict[str, type[Discriminator] | type[StyleGAN2Discriminator]] = {
    "residual": Discriminator,
    "stylegan2": StyleGAN2Discriminator,
}
