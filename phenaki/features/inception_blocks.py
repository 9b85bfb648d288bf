"""The layers of the 2015 Inception-v3 as tables, named as in torchvision.

A block concatenates its branches. A branch is a sequence of convolutions and pools, whose last
element may be a fork: convolutions of the same input, concatenated.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

Layers = tuple[Any, ...]  # of convolutions, pools and forks
Branches = tuple[Layers, ...]


class ConvSpec(NamedTuple):
    """A convolution with its normalisation and ReLU; the stride-1 ones keep the size."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """3x3, the same size; the padding does not count in the mean."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """3x3, the same size."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b m n c"]:
    """3x3 max pool of stride 2 without padding."""
    return nn.max_pool(x, (3, 3), (2, 2))


def block_a(pool: int) -> Branches:
    """35x35: 1x1, 5x5, twice 3x3, pool."""
    return (
        (ConvSpec("branch1x1", 64),),
        (ConvSpec("branch5x5_1", 48), ConvSpec("branch5x5_2", 64, (5, 5))),
        (
            ConvSpec("branch3x3dbl_1", 64),
            ConvSpec("branch3x3dbl_2", 96, (3, 3)),
            ConvSpec("branch3x3dbl_3", 96, (3, 3)),
        ),
        (average_pool, ConvSpec("branch_pool", pool)),
    )


def block_b() -> Branches:
    """35x35 to 17x17."""
    return (
        (ConvSpec("branch3x3", 384, (3, 3), 2, "VALID"),),
        (
            ConvSpec("branch3x3dbl_1", 64),
            ConvSpec("branch3x3dbl_2", 96, (3, 3)),
            ConvSpec("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
        ),
        (halve,),
    )


def block_c(width: int) -> Branches:
    """17x17: 7x7 in 1x7 and 7x1."""
    return (
        (ConvSpec("branch1x1", 192),),
        (
            ConvSpec("branch7x7_1", width),
            ConvSpec("branch7x7_2", width, (1, 7)),
            ConvSpec("branch7x7_3", 192, (7, 1)),
        ),
        (
            ConvSpec("branch7x7dbl_1", width),
            ConvSpec("branch7x7dbl_2", width, (7, 1)),
            ConvSpec("branch7x7dbl_3", width, (1, 7)),
            ConvSpec("branch7x7dbl_4", width, (7, 1)),
            ConvSpec("branch7x7dbl_5", 192, (1, 7)),
        ),
        (average_pool, ConvSpec("branch_pool", 192)),
    )


def block_d() -> Branches:
    """17x17 to 8x8."""
    return (
        (ConvSpec("branch3x3_1", 192), ConvSpec("branch3x3_2", 320, (3, 3), 2, "VALID")),
        (
            ConvSpec("branch7x7x3_1", 192),
            ConvSpec("branch7x7x3_2", 192, (1, 7)),
            ConvSpec("branch7x7x3_3", 192, (7, 1)),
            ConvSpec("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        ),
        (halve,),
    )


def block_e(pool: Callable) -> Branches:
    """8x8: 3x3 as a fork of 1x3 and 3x1."""

    def fork(name):
        return (ConvSpec(f"{name}a", 384, (1, 3)), ConvSpec(f"{name}b", 384, (3, 1)))

    return (
        (ConvSpec("branch1x1", 320),),
        (ConvSpec("branch3x3_1", 384), fork("branch3x3_2")),
        (
            ConvSpec("branch3x3dbl_1", 448),
            ConvSpec("branch3x3dbl_2", 384, (3, 3)),
            fork("branch3x3dbl_3"),
        ),
        (pool, ConvSpec("branch_pool", 192)),
    )


STEM: Layers = (
    ConvSpec("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    ConvSpec("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    ConvSpec("Conv2d_2b_3x3", 64, (3, 3)),
    halve,
    ConvSpec("Conv2d_3b_1x1", 80),
    ConvSpec("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    halve,
)
BLOCKS: dict[str, Branches] = {
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": block_b(),
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": block_d(),
    "Mixed_7b": block_e(average_pool),
    "Mixed_7c": block_e(max_pool),  # as in the graph of 2015; likely a slip there
}
