"""Products of T5's matrices, of which each device of a mesh holds a part.

Either these parts travel or the activations do: two products by parts of the columns, then of the
rows, of which each device adds its part to a sum. Frozen parameters have no gradient: the rule that
splits them is in `phenaki.sharding`.
"""

import math

import jax
from jax.sharding import PartitionSpec

from phenaki.blocks import sharding


def gathered(x, kernel, *arguments, **options):
    """x @ kernel, gathered on every device (`sharding.replicated`)."""
    return jax.lax.dot_general(x, sharding.replicated(kernel), *arguments, **options)


def columns(x, kernel, *arguments, **options):
    """x @ kernel by columns: devices gather the activations of their group."""
    x = sharding.constrain(x, {0: "data"})
    kernel = sharding.constrain(kernel, {1: sharding.WIDE})
    out = jax.lax.dot_general(x, kernel, *arguments, **options)
    return sharding.constrain(out, {0: "data", 2: sharding.WIDE})


def rows(x, kernel, *arguments, **options):
    """x @ kernel by rows, a sum of which each device receives its own samples and positions."""

    # XLA's own partitioner sums on every device: it scatters sums along one axis only.
    def local(x, kernel):
        out = jax.lax.dot_general(x, kernel, *arguments, **options)
        for axis, dimension in (("sequence", 1), ("fsdp", 0)):
            out = jax.lax.psum_scatter(out, axis, scatter_dimension=dimension, tiled=True)
        return out

    specs = PartitionSpec("data", None, sharding.WIDE), PartitionSpec(sharding.WIDE)
    own = PartitionSpec(sharding.BATCH, "sequence")
    return jax.shard_map(local, in_specs=specs, out_specs=own, check_vma=False)(x, kernel)


def parameters_stay(shape: tuple[int, ...], heads: int, head_dim: int, mlp_dim: int) -> bool:
    """Whether for ids of `shape` [b l] activations move less than parameters, and can be split.

    A layer has 4 matrices of heads x head_dim and 3 of mlp_dim rows or columns. Activations are
    gathered twice, and summed twice.
    """
    group = math.prod(sharding.axis_size(axis) for axis in sharding.WIDE)
    batch, length = shape
    if group == 1 or sharding.axis_size("tensor") > 1 or heads % group or mlp_dim % group:
        return False
    data, rows = sharding.axis_size("data"), sharding.axis_size("fsdp")
    if batch % (data * rows) or length % sharding.axis_size("sequence"):
        return False
    return 4 * (batch // data) * length < 4 * heads * head_dim + 3 * mlp_dim
