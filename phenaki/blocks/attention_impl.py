"""Attention implementations, softmax(q k / √e) v: plain XLA, and kernels that never store scores.

`IMPLEMENTATIONS` names them, `CHOICES` says which of them a config's `attention` tries, in order.
All compute the same values and gradients; tests/test_attention_impl.py is their specification.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from phenaki.blocks import flash as flash_kernel
from phenaki.blocks import sharding
from phenaki.blocks.dropout import DropoutMask
from phenaki.blocks.plain_attention import xla

LANES = 128  # of a TPU: splash attention's blocks are multiples of it
BLOCKS = (512, 384, 256, 128)  # of splash attention; the largest that divides the length is taken
QUERIES = PartitionSpec(sharding.BATCH, "sequence", "tensor")
KEYS = PartitionSpec(sharding.BATCH, None, "tensor")
QUERY_WORDS = PartitionSpec(sharding.BATCH, "tensor", "sequence")
KEY_WORDS = PartitionSpec(sharding.BATCH, "tensor")
SAMPLES = PartitionSpec(sharding.BATCH)

Queries = Float[Array, "b s h e"]
Keys = Float[Array, "b u h e"]
Mask = Bool[Array, "..."] | None  # broadcasts to [b h s u]; False hides a key
Drop = DropoutMask | None  # of weights [b h s u]


class Attention(NamedTuple):
    """One implementation."""

    supports: Callable[[Queries, Keys, Mask, Drop], bool]
    call: Callable[..., Queries]  # (query, key, value, mask, dropout), of supported operands
    platforms: tuple[str, ...] | None = None  # where "auto" considers it; None is everywhere

    def __call__(
        self,
        query: Queries,
        key: Keys,
        value: Keys,
        mask: Mask = None,
        dropout: Drop = None,
        **options: Any,
    ) -> Queries:
        """softmax(q k / √e) v; `options` are the kernel's own, such as `interpret`.

        Raises:
            NotImplementedError: it does not support such operands.
        """
        if not self.supports(query, key, mask, dropout):
            raise NotImplementedError(f"{self.call.__name__} does not support such operands.")
        return self.call(query, key, value, mask, dropout, **options)


def platform() -> str:
    """The current mesh's platform, else JAX's default; "hopper" if its GPUs are of that kind."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    if name in ("gpu", "cuda"):
        capability = getattr(jax.devices()[0], "compute_capability", None)
        name = "hopper" if capability == "9.0" else "gpu"
    return name


def select(
    attention: str, query: Queries, key: Keys, mask: Mask = None, dropout: Drop = None
) -> str:
    """The first of `CHOICES[attention]` that supports such operands, a key of `IMPLEMENTATIONS`."""
    names = CHOICES[attention]
    if attention == "auto":
        # A name that the config gives is taken on any platform; "auto" takes the platform's own.
        here = platform()
        names = tuple(n for n in names if here in (IMPLEMENTATIONS[n].platforms or (here,)))
    return next(n for n in names if IMPLEMENTATIONS[n].supports(query, key, mask, dropout))


def _splash_supports(query: Queries, key: Keys, mask: Mask, dropout: Drop) -> bool:
    """Every device has entire samples, heads and blocks of positions; no mask, no dropout."""
    if mask is not None or dropout is not None or not _divides(query):
        return False
    # Rules out the short sequences of attention over time, too.
    blocks = query.shape[1] % (LANES * sharding.axis_size("sequence")) == 0
    return blocks and key.shape[1] % LANES == 0


def splash(
    query: Queries, key: Keys, value: Keys, mask: Mask, dropout: Drop, *, interpret: bool = False
) -> Queries:
    """JAX's splash attention, a Pallas kernel for TPUs.

    Each device computes its own samples, heads and queries. `interpret` runs the kernel without a
    TPU, slowly.
    """
    del mask, dropout
    query = query * query.shape[-1] ** -0.5
    call = functools.partial(_splash_local, interpret=interpret)
    return _on_mesh(call, (QUERIES, KEYS, KEYS))(query, key, value)


def _splash_local(query, key, value, *, interpret):
    # Imported here, because only a TPU needs it.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    lengths = query.shape[1], key.shape[1]
    rows, columns = (next(b for b in BLOCKS if length % b == 0) for length in lengths)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=rows, block_kv=columns, block_kv_compute=columns,
        block_q_dkv=rows, block_kv_dkv=columns, block_kv_dkv_compute=columns,
        # Computes scores and their gradient once, not once for dq and again for dk and dv.
        use_fused_bwd_kernel=True,
    )  # fmt: skip
    everything = splash_attention_mask.FullMask(lengths)
    kernel = splash_attention_kernel.make_splash_mha_single_device(
        splash_attention_mask.MultiHeadMask([everything] * query.shape[2]),
        block_sizes=sizes,
        residual_checkpoint_name=flash_kernel.SAVE_FOR_BACKWARD,
        interpret=interpret,
    )
    return _swap(jax.vmap(kernel)(_swap(query), _swap(key), _swap(value)))


def _flash_supports(query: Queries, key: Keys, mask: Mask, dropout: Drop) -> bool:
    """Dropout without a mask, and a block of scores that fits a TPU's vector memory."""
    if mask is not None or dropout is None or not _divides(query):
        return False
    devices = sharding.axis_size("sequence")
    if query.shape[1] <= sharding.SHORT_SEQUENCE or query.shape[1] % devices:
        return False
    return bool(flash_kernel.block_of(query.shape[1] // devices, key.shape[1]))


def flash(
    query: Queries,
    key: Keys,
    value: Keys,
    mask: Mask,
    dropout: DropoutMask,
    *,
    interpret: Any = False,
) -> Queries:
    """The Pallas kernel of `phenaki.blocks.flash`, which drops weights; for TPUs.

    Each device computes its own samples, heads and queries. `interpret` is that of `splash`.
    """
    del mask
    query = query * query.shape[-1] ** -0.5
    call = functools.partial(_flash_local, rate=dropout.rate, interpret=interpret)
    on_mesh = _on_mesh(call, (QUERIES, KEYS, KEYS, QUERY_WORDS, KEY_WORDS))
    return on_mesh(query, key, value, dropout.rows, dropout.columns)


def _flash_local(query, key, value, rows, columns, *, rate, interpret):
    words = (jnp.swapaxes(x, 2, 3) for x in (rows, columns))
    out = flash_kernel.attention_with_dropout(
        _swap(query), _swap(key), _swap(value), *words, rate, interpret
    )
    return _swap(out)


def _cudnn_supports(query: Queries, key: Keys, mask: Mask, dropout: Drop) -> bool:
    """Half precision, heads of at most 128 values, and sequences long enough to be worth it."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    long = min(query.shape[1], key.shape[1]) >= LANES
    return mask is None and dropout is None and half and query.shape[-1] <= 128 and long


def cudnn(query: Queries, key: Keys, value: Keys, mask: Mask, dropout: Drop) -> Queries:
    """cuDNN's fused attention, for GPUs."""
    del mask, dropout
    width = query.shape[-1]
    # cuDNN takes head widths that are multiples of 8; zeros add nothing to the scores.
    query, key, value = (_pad(x, 8) for x in (query, key, value))
    out = jax.nn.dot_product_attention(query, key, value, scale=width**-0.5, implementation="cudnn")
    return out[..., :width]


def _mosaic_supports(query: Queries, key: Keys, mask: Mask, dropout: Drop) -> bool:
    """Half precision, heads of at most 128 values, and a mask that hides keys of entire samples."""
    del dropout
    if not _divides(query) or query.shape[1] % sharding.axis_size("sequence"):
        return False
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    keys_only = mask is None or (mask.ndim == 4 and mask.shape[1:3] == (1, 1))
    long = min(query.shape[1], key.shape[1]) > sharding.SHORT_SEQUENCE
    return half and keys_only and long and query.shape[-1] <= 128


def mosaic(
    query: Queries, key: Keys, value: Keys, mask: Mask, dropout: Drop, *, interpret: Any = False
) -> Queries:
    """The Pallas kernels of `phenaki.blocks.flash_gpu`, for Hopper GPUs.

    Each device computes its own samples, heads and queries. `interpret` is a
    `plgpu.InterpretGPUParams`, which runs the kernels without a GPU, slowly (jax >= 0.11.2).
    """
    # Imported here, because only a GPU needs it.
    from phenaki.blocks import flash_gpu

    query = query * query.shape[-1] ** -0.5
    rate, words, split = 0.0, None, None
    if dropout is not None:
        rate, words, split = dropout.rate, dropout[:2], (QUERY_WORDS, KEY_WORDS)
    mask = None if mask is None else jnp.broadcast_to(mask, (len(key), 1, 1, key.shape[1]))
    call = functools.partial(flash_gpu.attention, rate=rate, interpret=interpret)
    specs = QUERIES, KEYS, KEYS, None if mask is None else SAMPLES, split
    return _on_mesh(call, specs)(query, key, value, mask, words)


def _divides(query):
    """Whether samples and heads divide over the devices of the mesh."""
    batch = sharding.axis_size("data") * sharding.axis_size("fsdp")
    return query.shape[0] % batch == 0 and query.shape[2] % sharding.axis_size("tensor") == 0


def _on_mesh(call, specs):
    # XLA cannot partition a custom kernel: each device calls it on its own part. Checked types
    # would have each kernel state along which axes its outputs vary, and its gradients.
    if not sharding.is_split():
        return call
    return jax.shard_map(call, in_specs=specs, out_specs=QUERIES, check_vma=False)


def _swap(x):
    return jnp.swapaxes(x, 1, 2)  # [b s h e] <-> [b h s e], the kernels' order


def _pad(x, multiple):
    missing = math.ceil(x.shape[-1] / multiple) * multiple - x.shape[-1]
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, missing),))


IMPLEMENTATIONS: dict[str, Attention] = {
    "xla": Attention(lambda *_: True, xla),
    "splash": Attention(_splash_supports, splash, ("tpu",)),
    "flash": Attention(_flash_supports, flash, ("tpu",)),
    "cudnn": Attention(_cudnn_supports, cudnn, ("gpu", "hopper")),
    "mosaic": Attention(_mosaic_supports, mosaic, ("hopper",)),
}
# What each value of `config.attention` tries, in order. "flash" is splash attention's counterpart
# with dropout, so that the two are one choice.
CHOICES: dict[str, tuple[str, ...]] = {
    "auto": ("splash", "flash", "cudnn", "mosaic", "xla"),
    "xla": ("xla",),
    "splash": ("splash", "flash", "xla"),
    "cudnn": ("cudnn", "xla"),
    "mosaic": ("mosaic", "xla"),
}
