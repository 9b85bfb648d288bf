"""Attention on a mesh by the kernel of `packed_flash`: devices exchange positions for heads.

Between the products, "sequence" splits positions. Within self-attention it splits heads, so that
every device sees all positions of some heads: an all-to-all of its own queries, keys and values
moves less than a gathering of all keys and values. The product has the axis that is exchanged in
front, so that nothing is transposed. Cross-attention keeps positions split, as texts are short.

Shapes: n devices of "sequence", which are groups of heads before the exchange and chunks of
positions after it; b samples, s positions, d width, f values of the heads of a group.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from phenaki.blocks import attention_impl, sharding
from phenaki.blocks.dense import SAVE_PRODUCT, Streams
from phenaki.blocks.dropout import DropoutMask

CHOICES = ("auto", "splash")  # values of `config.attention` with which TPUs run the kernel
SPLIT = PartitionSpec(None, None, sharding.BATCH, "sequence")  # of [n 3 b s f]
OUT = PartitionSpec(None, sharding.BATCH, "sequence")  # of [n b s f]
WORDS = PartitionSpec(sharding.BATCH, "sequence")  # of [b g ..]: heads


def supports(
    shape: tuple[int, ...], heads: int, mask, attention: str, keys: int | None = None
) -> bool:
    """Whether attention of `heads` over x of `shape` [b s d] has this form on this mesh.

    Self-attention, or cross-attention to `keys`, of which `mask` then says nothing.
    """
    batch, length, width = shape
    groups = sharding.axis_size("sequence")
    parts = sharding.axis_size("data") * sharding.axis_size("fsdp")
    if mask is not None or attention not in CHOICES or attention_impl.platform() != "tpu":
        return False
    if sharding.axis_size("tensor") > 1 or length <= sharding.SHORT_SEQUENCE:
        return False
    if batch % parts or length % groups or heads % groups:
        return False
    from phenaki.blocks import packed_flash  # late: other platforms need not load Pallas

    if keys:
        return packed_flash.supports(1, length // groups, heads, width // heads, keys)
    return packed_flash.supports(groups, length // groups, heads // groups, width // heads)


def split_product(
    x: Streams, kernel: Float[Array, "d 3 h e"], bias: Float[Array, "3 h e"]
) -> Streams:
    """The query-key-value product of streams [b s d] by groups of heads, [n 3 b s f]."""
    groups, inputs = sharding.axis_size("sequence"), kernel.shape[0]
    # Reordered before it is gathered: each device then reorders its own part only.
    kernel = jnp.moveaxis(kernel.reshape(inputs, 3, groups, -1), 2, 1)
    bias = jnp.moveaxis(bias.reshape(3, groups, -1), 1, 0)[:, :, None, None]
    kernel = sharding.replicated(kernel)

    def one(x):
        out = jnp.einsum("bsd,dncf->ncbsf", x, kernel) + bias
        return sharding.constrain(out, {2: sharding.BATCH, 3: "sequence"})

    return jax.tree.map(one, x)


def join_product(x: Streams, kernel: Float[Array, "n_f d"], bias: Float[Array, " d"]) -> Streams:
    """The product of all heads' outputs, streams [n b s f], to [b s d]."""
    groups = sharding.axis_size("sequence")
    # By columns, which are one axis: a gradient that is split along two is summed on every device.
    kernel = sharding.replicated(kernel.T.reshape(kernel.shape[1], groups, -1))
    return jax.tree.map(lambda x: jnp.einsum("nbsf,dnf->bsd", x, kernel) + bias, x)


def flat_product(x: Streams, kernel: Float[Array, "d h e"], bias: Float[Array, "h e"]) -> Streams:
    """The product for queries of streams [b s d], of all heads side by side, [b s f]."""
    kernel = sharding.replicated(kernel.reshape(len(kernel), -1))
    return jax.tree.map(lambda x: x @ kernel + bias.reshape(-1), x)


def cross_attend(
    query: Float[Array, "b s f"],
    key_value: Float[Array, "b u 2 h e"],
    mask: Bool[Array, "b u"],
    dropout: DropoutMask | None,
    interpret: bool = False,
) -> Float[Array, "b s f"]:
    """dropout(softmax(q k / √e)) v where `mask` is True; `dropout` is of the scores [b h s u]."""
    from phenaki.blocks import packed_flash

    batch, keys, _, heads, width = key_value.shape
    rate = 0.0 if dropout is None else dropout.rate
    rows: list[Array] = []
    columns = jnp.zeros(
        (batch, heads * width // packed_flash.LANES, packed_flash.SUBLANES, keys), jnp.int32
    )
    if dropout is not None:
        *rows, columns = packed_flash.words(dropout.rows, dropout.columns, width)
    columns = packed_flash.visible(columns, mask)
    axes: sharding.Axes = {0: sharding.BATCH}
    # Sums are scattered over positions, which come first, though the product before is by heads.
    split: sharding.Axes = {0: sharding.BATCH, 1: "sequence"}
    key_value = key_value.reshape(batch, keys, -1)
    key_value = sharding.all_gather_with_sharded_gradient(key_value, axes, split)
    key_value = checkpoint_name(key_value, SAVE_PRODUCT)  # so that it is gathered once

    def local(query, key_value, columns, *rows):
        options = width, rate, interpret
        return packed_flash.cross_attention(query, key_value, *(rows or (None,)), columns, *options)

    if sharding.is_split():
        whole, positions = PartitionSpec(sharding.BATCH), PartitionSpec(sharding.BATCH, "sequence")
        by_position = PartitionSpec(sharding.BATCH, None, None, "sequence")
        specs = (positions, whole, whole, *[by_position] * len(rows))
        local = jax.shard_map(local, in_specs=specs, out_specs=positions, check_vma=False)
    return local(query, key_value, columns, *rows)


def attend(
    qkv: Float[Array, "n 3 b s f"],
    dropout: DropoutMask | None,
    width: int,
    interpret: bool = False,
) -> Float[Array, "n b s f"]:
    """dropout(softmax(q k / √e)) v of heads of `width` = e values.

    `dropout` is a mask of the scores [b h s s], with the heads of all groups in their order.
    """
    from phenaki.blocks import packed_flash

    words = () if dropout is None else packed_flash.words(dropout.rows, dropout.columns, width)
    rate = 0.0 if dropout is None else dropout.rate
    local = functools.partial(
        _local, groups=qkv.shape[0], width=width, rate=rate, interpret=interpret
    )
    if sharding.is_split():
        specs = (SPLIT, *[WORDS] * len(words))
        local = jax.shard_map(local, in_specs=specs, out_specs=OUT, check_vma=False)
    return local(qkv, *words)


def _local(qkv, *words, groups, width, rate, interpret):
    from phenaki.blocks import packed_flash

    exchange = functools.partial(
        jax.lax.all_to_all, axis_name="sequence", split_axis=0, concat_axis=0, tiled=True
    )
    if groups > 1:
        qkv = exchange(qkv)
    qkv = checkpoint_name(qkv, SAVE_PRODUCT)
    out = packed_flash.attention(qkv, *(words or (None, None)), width, rate, interpret)
    return exchange(out) if groups > 1 else out
