"""Attention as a Pallas kernel for TPUs that reads the products before it in place.

A head of 64 values fills half of a TPU's 128 lanes. Here heads that fill the lanes together are one
block, so that arrays need neither padding nor transposition: in self-attention queries, keys and
values are three blocks of one array, and so are their gradients. As in `phenaki.blocks.flash`, the
keys and values stay on the chip while blocks of queries pass.

Shapes: n chunks of r positions, in the order of the sequence, b samples, f = heads x values, g
blocks of p heads each, s = n·r positions, u keys of cross-attention.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int32, UInt32

from phenaki.blocks import packed_kernels
from phenaki.blocks.flash import ON_CHIP, SAVE_FOR_BACKWARD
from phenaki.blocks.packed_kernels import LANES, SUBLANES

Packed = Float[Array, "n 3 b r f"]
Out = Float[Array, "n b r f"]
Rows = UInt32[Array, "b g p s"]
Columns = Int32[Array, "b g 8 u"]


def block_of(chunks: int, length: int, keys: int | None = None) -> tuple[int, int]:
    """(chunks, positions of each) of a block of queries; (0, 0) if the lengths suit no block.

    `keys` is their number, by default that of all positions.
    """
    keys = keys or chunks * length
    if length % SUBLANES or keys % SUBLANES:
        return 0, 0
    if chunks == 1:
        fitting = (n for n in (512, 256, 128) if length % n == 0 and n * keys <= ON_CHIP)
        rows = next(fitting, length if length * keys <= ON_CHIP else 0)
        return (1, rows) if rows else (0, 0)
    for count in range(chunks, 0, -1):
        queries = count * length
        fills = queries % LANES == 0 or count == chunks
        if chunks % count == 0 and queries * keys <= ON_CHIP and fills:
            return count, length
    return 0, 0


def supports(chunks: int, length: int, heads: int, width: int, keys: int | None = None) -> bool:
    """Whether `heads` of `width` values fill blocks of lanes, and positions blocks of queries."""
    return (
        LANES % width == 0
        and LANES // width < SUBLANES
        and heads % (LANES // width) == 0
        and block_of(chunks, length, keys)[0] > 0
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def attention(
    qkv: Packed,
    rows: Rows | None,
    columns: Columns | None,
    width: int,
    rate: float,
    interpret: bool = False,
) -> Out:
    """dropout(softmax(q k / √e)) v of heads of `width` = e values.

    `rows` and `columns` are the words of a `DropoutMask` of the scores (see `words`), None without
    dropout; `rate` is the fraction of weights that are dropped. `interpret` runs the kernel without
    a TPU, slowly.
    """
    return _forward(qkv, rows, columns, width, rate, interpret)[0]


def words(
    rows: UInt32[Array, "b h s 1"], columns: UInt32[Array, "b h 1 u"], width: int
) -> tuple[Rows, Columns]:
    """The words of a `DropoutMask` in the kernel's order: by blocks of heads, positions last."""
    together = LANES // width

    def grouped(x):
        return x.reshape(x.shape[0], x.shape[1] // together, together, -1)

    padding = ((0, 0), (0, 0), (0, SUBLANES - together), (0, 0))
    signed = jax.lax.bitcast_convert_type(grouped(columns), jnp.int32)
    return grouped(rows), jnp.pad(signed, padding)


def visible(columns: Columns, mask: Bool[Array, "b u"]) -> Columns:
    """`columns` with a mask of the keys in their last row, for `cross_attention`."""
    return columns.at[:, :, -1].set(mask[:, None].astype(jnp.int32))


def _forward(qkv, rows, columns, width, rate, interpret):
    chunks, _, batch, length, values = qkv.shape
    grid = _Grid(batch, chunks, length, chunks * length, values, width)
    parts = [grid.query_of_three, grid.part(3, 1), grid.part(3, 2)]
    given = () if rows is None else (rows, columns)
    out, total = grid.call(
        functools.partial(packed_kernels.forward, width=width, rate=rate),
        2,
        [*parts, *[grid.row, grid.column][: len(given)]],
        (qkv, qkv, qkv, *given),
        [grid.query, grid.row],
        [grid.like_query(qkv.dtype), grid.like_total],
        interpret,
    )
    out, total = checkpoint_name(out, SAVE_FOR_BACKWARD), checkpoint_name(total, SAVE_FOR_BACKWARD)
    return out, (qkv, rows, columns, out, total)


def _backward(width, rate, interpret, residuals, gradient):
    qkv, rows, columns, out, total = residuals
    chunks, _, batch, length, values = qkv.shape
    grid = _Grid(batch, chunks, length, chunks * length, values, width)
    parts = [grid.query_of_three, grid.part(3, 1), grid.part(3, 2)]
    given = () if rows is None else (rows, columns)
    d_qkv = grid.call(
        functools.partial(packed_kernels.backward, width=width, rate=rate),
        5,
        [*parts, *[grid.row, grid.column][: len(given)], grid.query, grid.query, grid.row],
        (qkv, qkv, qkv, *given, gradient, out, total),
        grid.all_three,
        jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
        interpret,
        sums=2,
    )
    return d_qkv, None, None


attention.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_attention(
    query: Float[Array, "b s f"],
    key_value: Float[Array, "b u two_f"],
    rows: Rows | None,
    columns: Columns,
    width: int,
    rate: float,
    interpret: bool = False,
) -> Float[Array, "b s f"]:
    """`attention` to other keys and values, of which `columns` has a mask (see `visible`)."""
    return _cross_forward(query, key_value, rows, columns, width, rate, interpret)[0]


def _cross_forward(query, key_value, rows, columns, width, rate, interpret):
    (batch, length, values), keys = query.shape, key_value.shape[1]
    grid = _Grid(batch, 1, length, keys, values, width)
    given = (columns,) if rows is None else (rows, columns)
    out, total = grid.call(
        functools.partial(packed_kernels.forward, width=width, rate=rate, masked=True),
        2,
        [grid.query, grid.part(0, 0), grid.part(0, 1), *[grid.row, grid.column][-len(given) :]],
        (query[None], key_value[None], key_value[None], *given),
        [grid.query, grid.row],
        [grid.like_query(query.dtype), grid.like_total],
        interpret,
    )
    out, total = checkpoint_name(out, SAVE_FOR_BACKWARD), checkpoint_name(total, SAVE_FOR_BACKWARD)
    return out[0], (query, key_value, rows, columns, out, total)


def _cross_backward(width, rate, interpret, residuals, gradient):
    query, key_value, rows, columns, out, total = residuals
    (batch, length, values), keys = query.shape, key_value.shape[1]
    grid = _Grid(batch, 1, length, keys, values, width)
    given = (columns,) if rows is None else (rows, columns)
    like_key = jax.ShapeDtypeStruct((1, batch, keys, values), key_value.dtype)
    words = [grid.row, grid.column][-len(given) :]
    d_query, d_key, d_value = grid.call(
        functools.partial(packed_kernels.cross_backward, width=width, rate=rate),
        5,
        [grid.query, grid.part(0, 0), grid.part(0, 1), *words, grid.query, grid.query, grid.row],
        (query[None], key_value[None], key_value[None], *given, gradient[None], out, total),
        [grid.query, grid.part(0, 0), grid.part(0, 0)],
        [grid.like_query(query.dtype), like_key, like_key],
        interpret,
        sums=2,
    )
    return d_query[0], jnp.concatenate([d_key[0], d_value[0]], axis=-1), None, None


cross_attention.defvjp(_cross_forward, _cross_backward)


class _Grid:
    """The grid (samples, blocks of heads, blocks of queries), and how each array moves over it."""

    def __init__(self, batch, chunks, length, keys, values, width):
        count, block = block_of(chunks, length, keys)
        together, self.groups = LANES // width, values // LANES
        self.sizes = batch, chunks, length, keys, values
        self.shape = (batch, self.groups, chunks * length // (count * block))
        # Blocks are of chunks, or within the only one.
        down, right = (1, 0) if chunks > 1 else (0, 1)
        lanes = (block, LANES)
        self.query_of_three = pl.BlockSpec(
            (count, None, None, *lanes), lambda b, g, i: (down * i, 0, b, right * i, g)
        )
        self.query = pl.BlockSpec(
            (count, None, *lanes), lambda b, g, i: (down * i, b, right * i, g)
        )
        self.all_three = pl.BlockSpec(
            (chunks, 3, None, length, LANES), lambda b, g, i: (0, 0, b, 0, g)
        )
        self.row = pl.BlockSpec((None, None, together, count * block), lambda b, g, i: (b, g, 0, i))
        self.column = pl.BlockSpec((None, None, SUBLANES, keys), lambda b, g, i: (b, g, 0, 0))
        self.like_total = jax.ShapeDtypeStruct(
            (batch, self.groups, together, chunks * length), jnp.float32
        )

    def part(self, parts, which):
        """All keys or values of a block of heads: of an axis of `parts`, or side by side (0)."""
        _, chunks, length, keys, _ = self.sizes
        if parts:
            return pl.BlockSpec(
                (chunks, None, None, length, LANES), lambda b, g, i: (0, which, b, 0, g)
            )
        groups = self.groups
        return pl.BlockSpec((1, None, keys, LANES), lambda b, g, i: (0, b, 0, which * groups + g))

    def like_query(self, dtype):
        batch, chunks, length, _, values = self.sizes
        return jax.ShapeDtypeStruct((chunks, batch, length, values), dtype)

    def call(self, kernel, products, in_specs, inputs, out_specs, out_shape, interpret, sums=0):
        """Runs `kernel` with `sums` float32 arrays of a block's keys on the chip.

        `products` is the number of matrix products over the scores of every head.
        """
        batch, chunks, length, keys, values = self.sizes
        scores = batch * chunks * length * keys
        return pl.pallas_call(
            kernel,
            grid=self.shape,
            in_specs=in_specs,
            out_specs=out_specs,
            out_shape=out_shape,
            scratch_shapes=[pltpu.VMEM((keys, LANES), jnp.float32)] * sums,
            cost_estimate=pl.CostEstimate(
                flops=2 * products * scores * values,
                transcendentals=scores * values // LANES,
                bytes_accessed=sum(x.nbytes for x in inputs),
            ),
            # Blocks of queries are sequential: the backward pass sums over them.
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary")
            ),
            interpret=interpret,
        )(*inputs)
