"""Dense layer whose output may have several axes, in the form that each backend runs fastest."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PyTree

from phenaki.blocks import sharding

# One array, or several of different lengths that pass a layer together, such as clips and images by
# kind: the layer's parameters are gathered once, and have one gradient to scatter.
Streams: TypeAlias = PyTree[Float[Array, "..."]]

# The checkpoint name of products, for rematerialisation policies that save them.
SAVE_PRODUCT = "product"


class Dense(nn.Module):
    """x @ kernel + bias over the last axis, which becomes `features` (an int or several axes).

    The kernel is [d, *features] and the bias [*features], both float32; they and `x` are cast to
    `dtype` for the product. `product` (x, kernel, bias) takes the place of the matrix product; d is
    `inputs` if `x` then has another form. Every stream of `x` becomes one of the result.
    """

    features: int | tuple[int, ...]
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.lecun_normal()
    product: Callable[[Streams, Array, Array], Streams] | None = None
    inputs: int | None = None

    @nn.compact
    def __call__(self, x: Streams) -> Any:
        features = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        inputs = self.inputs or jax.tree.leaves(x)[0].shape[-1]
        kernel = self.param("kernel", _matrix_init, (inputs, *features), self.kernel_init)
        bias = self.param("bias", nn.initializers.zeros_init(), features)
        x, kernel, bias = jax.tree.map(lambda value: value.astype(self.dtype), (x, kernel, bias))
        return checkpoint_name((self.product or matrix_product)(x, kernel, bias), SAVE_PRODUCT)


def _matrix_init(key: Array, shape: Sequence[int], init: Callable) -> Array:
    """A kernel initialised as the matrix of its first axis and all others."""
    # Of a kernel of more axes, Flax's initialisers take all but the last two for a receptive field.
    return init(key, (shape[0], math.prod(shape[1:])), jnp.float32).reshape(shape)


def product_by_heads(
    x: Streams, kernel: Float[Array, "d *n h e"], bias: Float[Array, "*n h e"]
) -> Streams:
    """The product of streams [b l d], of which "sequence" splits the heads, not the positions.

    Each of its devices holds whole heads' parameters and needs no others': where positions are few,
    as those of texts are, gathering these moves less.
    """
    heads = kernel.ndim - 2
    parts = sharding.axis_size("tensor") * sharding.axis_size("sequence")
    if sharding.axis_size("sequence") == 1 or kernel.shape[heads] % parts:
        return matrix_product(x, kernel, bias)
    own: sharding.Axes = {heads: sharding.HEADS}
    kernel = sharding.all_gather_with_sharded_gradient(kernel, own, {0: "fsdp", **own})

    def one(x):
        x = sharding.constrain(x, {0: sharding.BATCH})
        out = jnp.tensordot(x, kernel, 1) + bias
        return sharding.constrain(out, {0: sharding.BATCH, out.ndim - 2: sharding.HEADS})

    return jax.tree.map(one, x)


def matrix_product(
    x: Streams,
    kernel: Float[Array, "d *n"],
    bias: Float[Array, "*n"],
    split: sharding.Axes = sharding.ROWS,
) -> Streams:
    """x @ kernel + bias of streams [.. d]; `split` is the layout of the stored matrix."""
    # A reshape would merge the split axis of heads with an unsplit one.
    if sharding.axis_size("tensor") > 1:
        return jax.tree.map(lambda x: jnp.tensordot(x, kernel, 1) + bias, x)
    matrix = sharding.replicated(kernel.reshape(len(kernel), -1), split)
    return jax.tree.map(functools.partial(_plain_product, matrix=matrix, bias=bias), x)


def _plain_product(x: Array, matrix: Array, bias: Array) -> Array:
    """One plain matrix product: XLA's CPU backend takes a quarter longer for the batched form."""
    # On a mesh the leading axes stay apart, because one of them is split.
    flat = x if sharding.is_split() else x.reshape(-1, x.shape[-1])
    return (flat @ matrix + bias.reshape(-1)).reshape(*x.shape[:-1], *bias.shape)
