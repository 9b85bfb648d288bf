"""Attention with dropped weights as a Pallas kernel for TPUs, which never stores the scores.

JAX's splash attention drops no weights. Keys and values of a head stay on the chip while blocks of
queries pass, so that a block's scores are whole and need no running maximum. They are computed
transposed, [u q]: sums over keys then run over sublanes, and what belongs to a query is a row.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, UInt32

from phenaki.blocks import reductions
from phenaki.blocks.dropout import kept

SAVE_FOR_BACKWARD = "attention"  # names what is worth keeping where all else is computed again
ON_CHIP = 3 * 2**18  # scores of a block: a few such arrays fit into a TPU's vector memory

Queries = Float[Array, "b h s e"]
Keys = Float[Array, "b h u e"]
Rows = UInt32[Array, "b h 1 s"]
Columns = UInt32[Array, "b h u 1"]


def block_of(queries: int, keys: int) -> int:
    """Queries at once, 0 if there is no such number."""
    fitting = (n for n in (512, 256, 128) if queries % n == 0 and n * keys <= ON_CHIP)
    whole = queries if queries * keys <= ON_CHIP else 0
    return next(fitting, whole) if keys % 16 == 0 else 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def flash(
    query: Queries,
    key: Keys,
    value: Keys,
    rows: Rows,
    columns: Columns,
    rate: float,
    interpret: bool = False,
) -> Queries:
    """dropped(softmax(q k)) v, with the weights kept that `dropout.kept` keeps of the words."""
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
    out, total = checkpoint_name(out, SAVE_FOR_BACKWARD), checkpoint_name(total, SAVE_FOR_BACKWARD)
    return out, (query, key, value, rows, columns, out, total)


def _backward(rate, interpret, residuals, gradient):
    query, key, value, rows, columns, out, total = residuals
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


flash.defvjp(_forward, _backward)


def _call(kernel, count, kinds, inputs, outputs, interpret):
    """Runs `kernel` over samples, heads and, one after the other, blocks of queries.

    Kinds: "q" has a row per query, "k" per key; "r" is one row, "c" one column. `count` is that of
    products over the scores.
    """
    (batch, heads, queries, width), keys = inputs[0].shape, inputs[1].shape[2]
    block = block_of(queries, keys)
    forms = {  # whole, on the chip, and whether blocks of queries have their own
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
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
    )(*inputs)


def _product(a, b, over):
    """The product of two matrices, summed over dimension `over[0]` of `a` and `over[1]` of `b`."""
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
