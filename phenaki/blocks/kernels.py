"""softmax(q k / √e) v without storing the scores: splash attention on TPUs, cuDNN's on GPUs.

Kernels have no dropout on the weights and take no mask; `usable` says where one computes the same
as the plain form in `phenaki.blocks.attention`.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from phenaki.blocks import layout

NAMES = ("auto", "xla", "splash", "cudnn")
LANES = 128  # of a TPU: blocks are multiples of it
BLOCKS = (512, 384, 256, 128)

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
    if attention == "auto":
        attention = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}.get(platform(), "xla")
    fits = {"splash": splash_fits, "cudnn": cudnn_fits}.get(attention)
    if fits is None or not fits(query, key):
        return None
    return {"splash": splash, "cudnn": cudnn}[attention]


def splash_fits(query: Queries, key: Keys) -> bool:
    """Whole samples, heads and blocks of positions on every device of the mesh.

    Never the six positions of attention over time.
    """
    batch = layout.axis_size("data") * layout.axis_size("fsdp")
    whole = query.shape[0] % batch == 0 and query.shape[2] % layout.axis_size("tensor") == 0
    blocks = query.shape[1] % (LANES * layout.axis_size("sequence")) == 0
    return whole and blocks and key.shape[1] % LANES == 0


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
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.size > 1:  # XLA cannot split a kernel
        queries = PartitionSpec(layout.BATCH, "sequence", "tensor")
        keys = PartitionSpec(layout.BATCH, None, "tensor")
        call = jax.shard_map(
            call, in_specs=(queries, keys, keys), out_specs=queries, check_vma=False
        )
    return call(query, key, value)


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
        interpret=interpret,
    )
    swap = functools.partial(jnp.swapaxes, axis1=1, axis2=2)
    return swap(jax.vmap(kernel)(swap(query), swap(key), swap(value)))


def _pad(x, multiple):
    missing = math.ceil(x.shape[-1] / multiple) * multiple - x.shape[-1]
    return jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, missing),))
