"""The frame of a Pallas kernel for Hopper GPUs in which blocks of some operands pass others by.

A thread block has `GROUPS` warpgroups that compute, each on `ROWS` rows of its own, and one that
copies the blocks that pass into shared memory ahead of them.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

ROWS = 64  # of a warpgroup's matrix instruction
GROUPS = 2
BLOCK = GROUPS * ROWS  # the rows that stay divide into blocks of so many
WIDTH = 64  # widths of tiles are multiples of it: a row of the swizzled layout, in half precision
STAGES = 2  # blocks in shared memory: one is used while another is copied
COPY_REGISTERS = 40  # per thread of the copying warpgroup; the others get the rest
# `plgpu.load` demands an index up to jax 0.10 and has none from 0.12 on.
INDEX = inspect.signature(plgpu.load).parameters.get("idx")
WHOLE: tuple[Any, ...] = ((),) if INDEX and INDEX.default is inspect.Parameter.empty else ()

Operands = dict[str, Any]  # arrays or their references: [b rows h e], [b h rows] or [b rows]


def run(
    start: Callable[[int], Any],
    step: Callable[[Operands, Operands, Any], Any],
    finish: Callable[[Any], Operands],
    still: Operands,
    moving: Operands,
    outputs: Operands,
    size: int,
    interpret: Any,
) -> Operands:
    """Computes `outputs`: blocks of `still` stay, while `size` rows of `moving` at a time pass by.

    Operands are tiles in half precision, [b rows h e], or numbers per row, [b h rows] or [b rows].
    In a step, tiles are references to shared memory; numbers are vectors along axis 0 of a block of
    scores for `still`, along axis 1 for `moving`. `still` has another tile, "scratch", for a block
    of scores: see `product_through`. The carry begins as `start(e)`. `finish` turns it into the
    outputs: tiles that have the shape of `still`'s of the same name, and numbers per row.
    `interpret` is that of `plgpu.kernel`.
    """
    batch, length, heads, width = next(x.shape for x in still.values() if x.ndim == 4)
    widths = {name: width for name, x in still.items() if x.ndim == 4}
    half = next(x.dtype for x in still.values() if x.ndim == 4)
    tiles = {
        name: plgpu.SMEM((GROUPS, ROWS, columns), half, transforms=_transforms())
        for name, columns in (widths | dict(scratch=size)).items()
    }
    kernel = plgpu.kernel(
        functools.partial(_kernel, start, step, finish, size),
        out_type=[{n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in outputs.items()}],
        scratch_types=[tiles, plgpu.Barrier(num_barriers=GROUPS, num_arrivals=len(widths))],
        grid=(heads, length // BLOCK, batch),
        grid_names=("head", "block", "sample"),
        num_threads=GROUPS + 1,
        thread_name="group",
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpret,
    )
    return kernel(still, moving)[0]


def _kernel(start, step, finish, size, still, moving, outputs, tiles, barriers):
    group = jax.lax.axis_index("group")
    rows = pl.ds(jax.lax.axis_index("block") * BLOCK + group * ROWS, ROWS)
    still, outputs = ({n: _part(x, rows) for n, x in refs.items()} for refs in (still, outputs))
    moving = {name: _part(ref, slice(None)) for name, ref in moving.items()}
    tiles = {name: tile.at[group] for name, tile in tiles.items()}
    scratch = dict(scratch=tiles.pop("scratch"))

    def compute(pipeline):
        for name, tile in tiles.items():
            plgpu.copy_gmem_to_smem(still[name], tile, barriers.at[group])
        numbers = {n: _load(ref, 0) for n, ref in still.items() if n not in tiles}
        plgpu.barrier_wait(barriers.at[group])
        width = next(iter(tiles.values())).shape[1]
        _, carry = pipeline((numbers, start(width)))
        for name, result in finish(carry).items():
            if name in tiles:
                tiles[name][...] = result.astype(tiles[name].dtype)
            else:
                outputs[name][...] = result
        plgpu.commit_smem()
        for name in outputs.keys() & tiles.keys():
            plgpu.copy_smem_to_gmem(tiles[name], outputs[name])
        plgpu.wait_smem_to_gmem(0)

    def body(_, moving, carry):
        numbers, carry = carry
        moving = {n: _load(ref, 1) if len(ref.shape) == 1 else ref for n, ref in moving.items()}
        return numbers, step(tiles | scratch | numbers, moving, carry)

    specs: Any = {name: _block(ref, size) for name, ref in moving.items()}
    plgpu.emit_pipeline_warp_specialized(
        body,
        grid=(next(iter(moving.values())).shape[0] // size,),
        in_specs=(specs,),
        max_concurrent_steps=STAGES,
        num_compute_wgs=GROUPS,
        wg_axis="group",
        memory_registers=COPY_REGISTERS,
        compute_context=compute,
    )(moving)


def _part(ref, rows):
    """Rows of this thread block's sample and head."""
    sample, head = jax.lax.axis_index("sample"), jax.lax.axis_index("head")
    indices = {2: (sample, rows), 3: (sample, head, rows), 4: (sample, rows, head)}
    return ref.at[indices[len(ref.shape)]]


def _block(ref, size):
    if len(ref.shape) == 1:
        return plgpu.BlockSpec((size,), lambda i: (i,))
    return plgpu.BlockSpec((size, ref.shape[1]), lambda i: (i, 0), transforms=_transforms())


def _transforms():
    gpu: Any = plgpu  # by its annotations, from 0.12 on, both classes are abstract
    return gpu.TilingTransform((8, WIDTH)), gpu.SwizzleTransform(2 * WIDTH)


def _load(ref, axis):
    return plgpu.load(ref, *WHOLE, layout=_along(axis), optimized=False)


def _along(axis):
    return plgpu.Layout.WGMMA.reduce(1 - axis)


def full(number: float, width: int | None = None) -> Float[Array, "..."]:
    """`number` for each of a warpgroup's rows, or for `width` columns of each."""
    x = jnp.full((ROWS,) if width is None else (ROWS, width), number, jnp.float32)
    return plgpu.layout_cast(x, _along(0) if width is None else plgpu.Layout.WGMMA)


def spread(vector: Array, shape: tuple[int, ...], axis: int) -> Array:
    """`vector` along `axis` of a matrix of `shape`, repeated along the other axis."""
    return jax.lax.broadcast_in_dim(vector, shape, [axis])


def product(a: Any, b: Any) -> Float[Array, "r c"]:
    """The float32 product of a warpgroup's rows `a` and of `b`, both in shared memory."""

    def multiply(sums):
        plgpu.wgmma(sums, a, b)
        return sums[...]

    return pl.run_scoped(multiply, plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32))


def product_transposed(a: Any, b: Any) -> Float[Array, "r c"]:
    """`product` of `a` and the transposed `b`."""
    return product(a, b.transpose((1, 0)))


def product_through(scratch: Any, a: Array, b: Any) -> Float[Array, "r c"]:
    """`product` of values `a`, which are rounded to `scratch`, and `b`."""
    # The instruction takes them from registers, too; JAX's interpreter does not.
    scratch[...] = a.astype(scratch.dtype)
    plgpu.commit_smem()
    return product(scratch, b)
