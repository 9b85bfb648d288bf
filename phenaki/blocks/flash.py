"""Flash attention with dropout as a Pallas kernel for TPUs: the scores are never stored.

JAX's splash attention has no dropout. In this kernel the keys and values of a head stay on the chip
while blocks of queries pass. A block of scores therefore covers all keys and needs no running
maximum. Scores are computed transposed, [u q]: sums over keys run over sublanes, and a value per
query is a row.

Shapes: b samples, h heads, s queries, u keys, e values per head.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, UInt32

from phenaki.blocks import reductions
from phenaki.blocks.dropout import kept

# The checkpoint name of attention's outputs. A rematerialisation policy saves what has this name,
# so that the backward pass need not run the kernel again.
SAVE_FOR_BACKWARD = "attention"
ON_CHIP = 3 * 2**18  # scores per block: a few float32 arrays of them fit a TPU's vector memory

Queries = Float[Array, "b h s e"]
Keys = Float[Array, "b h u e"]
Rows = UInt32[Array, "b h 1 s"]
Columns = UInt32[Array, "b h u 1"]


def block_of(queries: int, keys: int) -> int:
    """The number of queries per block; 0 if the lengths suit no block."""
    # Multiples of 128 fill the lanes. A shorter sequence is one block.
    fitting = (n for n in (512, 256, 128) if queries % n == 0 and n * keys <= ON_CHIP)
    whole = queries if queries * keys <= ON_CHIP else 0
    return next(fitting, whole) if keys % 16 == 0 else 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def attention_with_dropout(
    query: Queries,
    key: Keys,
    value: Keys,
    rows: Rows,
    columns: Columns,
    rate: float,
    interpret: Any = False,
) -> Queries:
    """dropout(softmax(q k)) v; the caller scales the query.

    `rows` and `columns` are the random words of a `DropoutMask` of the scores; `rate` is the
    fraction of weights that are dropped. `interpret` runs the kernel without a TPU, slowly:
    True, or `pltpu.InterpretParams`.
    """
    return _forward(query, key, value, rows, columns, rate, interpret)[0]


def _forward(query, key, value, rows, columns, rate, interpret):
    out, total = _call(
        functools.partial(_forward_kernel, rate=rate),
        2,
        "qkkrc",
        (query, key, value, rows, columns),
        [("q", query.dtype), ("r", jnp.float32)],
        interpret,
    )
    # `total`, the logarithm of each softmax's sum, is all that the backward pass needs to compute
    # the weights again from the scores.
    out, total = checkpoint_name(out, SAVE_FOR_BACKWARD), checkpoint_name(total, SAVE_FOR_BACKWARD)
    return out, (query, key, value, rows, columns, out, total)


def _backward(rate, interpret, residuals, gradient):
    query, key, value, rows, columns, out, total = residuals
    # The softmax's gradient, w (dw - Σ w dw): the sum equals out · d_out, which is much smaller.
    inner = reductions.inner(out.astype(jnp.float32), gradient.astype(jnp.float32))
    d_query, d_key, d_value = _call(
        functools.partial(_backward_kernel, rate=rate),
        5,
        "qkkrcqrr",
        (query, key, value, rows, columns, gradient, total, inner[:, :, None]),
        [("q", query.dtype), ("k", jnp.float32), ("k", jnp.float32)],
        interpret,
    )
    return d_query, d_key.astype(key.dtype), d_value.astype(value.dtype), None, None


attention_with_dropout.defvjp(_forward, _backward)


def _call(kernel, count, kinds, inputs, outputs, interpret):
    """Runs `kernel` over samples, heads and, sequentially, blocks of queries.

    `kinds` has a letter per input, `outputs` (letter, dtype) pairs: "q" is an array with a row per
    query, "k" with a row per key, "r" a row over queries, "c" a column over keys. `count` is the
    number of matrix products over the scores, for the cost estimate.
    """
    from jax.experimental import pallas as pl  # late: other platforms need not load it
    from jax.experimental.pallas import tpu as pltpu

    (batch, heads, queries, width), keys = inputs[0].shape, inputs[1].shape[2]
    block = block_of(queries, keys)
    # Per kind: the array's shape, the shape on the chip, and the axes along which it moves with
    # the blocks of queries.
    forms = {
        "q": ((queries, width), (block, width), (1, 0)),
        "k": ((keys, width), (keys, width), (0, 0)),
        "r": ((1, queries), (1, block), (0, 1)),
        "c": ((keys, 1), (keys, 1), (0, 0)),
    }

    def spec(kind):
        _, shape, (down, right) = forms[kind]
        return pl.BlockSpec((None, None, *shape), lambda b, h, q: (b, h, down * q, right * q))

    scores = batch * heads * queries * keys
    return pl.pallas_call(
        kernel,
        grid=(batch, heads, queries // block),
        in_specs=[spec(kind) for kind in kinds],
        out_specs=[spec(kind) for kind, _ in outputs],
        out_shape=[
            jax.ShapeDtypeStruct((batch, heads, *forms[kind][0]), dtype) for kind, dtype in outputs
        ],
        cost_estimate=pl.CostEstimate(
            flops=2 * count * scores * width,
            transcendentals=scores,
            bytes_accessed=sum(x.nbytes for x in inputs),
        ),
        compiler_params=pltpu.CompilerParams(
            # Blocks of queries are sequential: the backward pass sums over them in place.
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
    )(*inputs)


def _product(a, b, over):
    """The float32 product of two matrices over dimension `over[0]` of `a` and `over[1]` of `b`."""
    dimensions = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _forward_kernel(query, key, value, rows, columns, out, total, *, rate):
    scores = _product(key[...], query[...], (1, 1))
    highest = scores.max(axis=0, keepdims=True)
    weights = jnp.exp(scores - highest)
    sums = weights.sum(axis=0, keepdims=True)
    total[...] = highest + jnp.log(sums)
    weights = jnp.where(kept(rows[...], columns[...], rate), weights / (sums * (1 - rate)), 0)
    out[...] = _product(weights.astype(value.dtype), value[...], (0, 0)).astype(out.dtype)


def _backward_kernel(
    query, key, value, rows, columns, gradient, total, inner, d_query, d_key, d_value, *, rate
):
    from jax.experimental import pallas as pl

    # Gradients of keys and values sum over the blocks of queries; the first block starts at zero.
    @pl.when(pl.program_id(2) == 0)
    def _():
        d_key[...] = jnp.zeros_like(d_key)
        d_value[...] = jnp.zeros_like(d_value)

    weights = jnp.exp(_product(key[...], query[...], (1, 1)) - total[...])
    scale = jnp.where(kept(rows[...], columns[...], rate), 1 / (1 - rate), 0)
    dropped = (weights * scale).astype(value.dtype)
    d_value[...] += _product(dropped, gradient[...], (1, 0))
    d_weights = _product(value[...], gradient[...], (1, 1)) * scale
    d_scores = (weights * (d_weights - inner[...])).astype(key.dtype)
    d_key[...] += _product(d_scores, query[...], (1, 0))
    d_query[...] = _product(d_scores, key[...], (0, 0)).astype(d_query.dtype)
