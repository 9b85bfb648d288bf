"""softmax(q k / √e) v without storing the scores: splash attention on TPUs, cuDNN's on GPUs.

They drop no weights, which on TPUs `flash` does; none takes a mask. Each computes the same as the
plain form in `phenaki.blocks.attention`.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from phenaki.blocks import flash, sharding
from phenaki.blocks.dropout import Words

NAMES = ("auto", "xla", "splash", "cudnn")
LANES = 128  # of a TPU: blocks are multiples of it
BLOCKS = (512, 384, 256, 128)
QUERIES = PartitionSpec(sharding.BATCH, "sequence", "tensor")
KEYS = PartitionSpec(sharding.BATCH, None, "tensor")

Queries = Float[Array, "b s h e"]
Keys = Float[Array, "b u h e"]


def platform() -> str:
    """What the program is traced for: the platform of the mesh that is set, else JAX's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def choose(attention: str, query: Queries, key: Keys) -> Callable[..., Queries] | None:
    """The kernel for such operands under `attention`, None for the plain form.

    "auto" is the platform's own where it fits, "xla" always the plain form; "splash" and "cudnn"
    are themselves wherever they fit.
    """
    attention = _meant(attention)
    fits = {"splash": splash_fits, "cudnn": cudnn_fits}.get(attention)
    if fits is None or not fits(query, key):
        return None
    return {"splash": splash, "cudnn": cudnn}[attention]


def drops(attention: str, query: Queries, key: Keys) -> bool:
    """Whether `dropped` is for such operands under `attention`: where splash attention would be."""
    sequence = sharding.axis_size("sequence")
    fits = query.shape[1] > sharding.SHORT_SEQUENCE and query.shape[1] % sequence == 0
    blocks = fits and flash.block_of(query.shape[1] // sequence, key.shape[1])
    return _meant(attention) == "splash" and _whole(query) and bool(blocks)


def _meant(attention):
    if attention != "auto":
        return attention
    return {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}.get(platform(), "xla")


def _whole(query):
    """Whether every device of the mesh has whole samples and heads."""
    batch = sharding.axis_size("data") * sharding.axis_size("fsdp")
    return query.shape[0] % batch == 0 and query.shape[2] % sharding.axis_size("tensor") == 0


def splash_fits(query: Queries, key: Keys) -> bool:
    """Whole samples, heads and blocks of positions on every device of the mesh.

    Never the six positions of attention over time.
    """
    blocks = query.shape[1] % (LANES * sharding.axis_size("sequence")) == 0
    return _whole(query) and blocks and key.shape[1] % LANES == 0


def cudnn_fits(query: Queries, key: Keys) -> bool:
    """Half precision, heads of at most 128 values, and enough positions to be worth it."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and query.shape[-1] <= 128 and min(query.shape[1], key.shape[1]) >= LANES


def cudnn(query: Queries, key: Keys, value: Keys) -> Queries:
    """cuDNN's fused attention."""
    width = query.shape[-1]
    query, key, value = (_pad(x, 8) for x in (query, key, value))
    out = jax.nn.dot_product_attention(query, key, value, scale=width**-0.5, implementation="cudnn")
    return out[..., :width]


def splash(query: Queries, key: Keys, value: Keys, *, interpret: bool = False) -> Queries:
    """JAX's splash attention, a Pallas kernel, on each device's samples, heads and queries."""
    query = query * query.shape[-1] ** -0.5
    call = functools.partial(_splash_local, interpret=interpret)
    return _on_mesh(call, (QUERIES, KEYS, KEYS))(query, key, value)


def dropped(
    query: Queries,
    key: Keys,
    value: Keys,
    words: tuple[Words, Words],
    rate: float,
    *,
    interpret: bool = False,
) -> Queries:
    """`flash`, on each device's samples, heads and queries; `words` are of `Dropout.words`."""
    query = query * query.shape[-1] ** -0.5
    call = functools.partial(_dropped_local, rate=rate, interpret=interpret)
    rows = PartitionSpec(sharding.BATCH, "tensor", "sequence")
    columns = PartitionSpec(sharding.BATCH, "tensor")
    return _on_mesh(call, (QUERIES, KEYS, KEYS, rows, columns))(query, key, value, *words)


def _on_mesh(call, specs):
    """XLA cannot split a kernel: each device of the mesh calls it."""
    if not sharding.is_split():
        return call
    return jax.shard_map(call, in_specs=specs, out_specs=QUERIES, check_vma=False)


def _dropped_local(query, key, value, rows, columns, *, rate, interpret):
    swap = functools.partial(jnp.swapaxes, axis1=1, axis2=2)
    words = (jnp.swapaxes(x, 2, 3) for x in (rows, columns))
    return swap(flash.flash(swap(query), swap(key), swap(value), *words, rate, interpret))


def _splash_local(query, key, value, *, interpret):
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    lengths = query.shape[1], key.shape[1]
    rows, columns = (next(b for b in BLOCKS if length % b == 0) for length in lengths)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=rows, block_kv=columns, block_kv_compute=columns,
        block_q_dkv=rows, block_kv_dkv=columns, block_kv_dkv_compute=columns,
        use_fused_bwd_kernel=True,  # scores and their gradient once, not for dq and dk, dv apart
    )  # fmt: skip
    everything = splash_attention_mask.FullMask(lengths)
    kernel = splash_attention_kernel.make_splash_mha_single_device(
        splash_attention_mask.MultiHeadMask([everything] * query.shape[2]),
        block_sizes=sizes,
        residual_checkpoint_name=flash.SAVE_FOR_BACKWARD,
        interpret=interpret,
    )
    swap = functools.partial(jnp.swapaxes, axis1=1, axis2=2)
    return swap(jax.vmap(kernel)(swap(query), swap(key), swap(value)))


def _pad(x, multiple):
    missing = math.ceil(x.shape[-1] / multiple) * multiple - x.shape[-1]
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, missing),))
