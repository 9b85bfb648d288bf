"""Attention kernels compared with the plain form: values, gradients and milliseconds."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import timing

from phenaki.blocks import attention_impl
from phenaki.blocks.dropout import Dropout


class Attention(NamedTuple):
    """A case of `kernels`; `batch` samples with a head of `width` each."""

    name: str
    batch: int
    queries: int
    keys: int
    width: int
    rate: float = 0.0
    mask: bool = False


def measure(case: Attention, repeats: int) -> dict[str, Any]:
    """Attention as "auto" chooses it, next to XLA's: errors; milliseconds forward and backward.

    Errors are relative, of the first two samples, to the plain form in float32 of the same inputs.
    """
    random = jax.random.split(jax.random.key(0), 6)
    of_queries, of_keys = ((case.batch, n, 1, case.width) for n in (case.queries, case.keys))
    query, key, value, gradient = (
        jax.random.normal(seed, shape, jnp.bfloat16)
        for seed, shape in zip(random, (of_queries, of_keys, of_keys, of_queries), strict=False)
    )
    mask = None
    if case.mask:
        visible = jax.random.bernoulli(random[4], 0.7, (case.batch, 1, 1, case.keys))
        mask = visible.at[..., 0].set(True)
    dropout: Any = None
    if case.rate:
        scores = (case.batch, 1, case.queries, case.keys)
        draw = Dropout(case.rate, deterministic=False)
        dropout = draw.apply({}, scores, method="mask", rngs={"dropout": random[5]})
    chosen = attention_impl.select("auto", query, key, mask, dropout)
    ours = _value_and_gradients(chosen, mask, dropout)
    plain = _value_and_gradients("xla", mask, dropout)
    exact = jax.tree.map(lambda x: x[:2].astype(jnp.float32), (query, key, value, gradient))
    first = functools.partial(jax.tree.map, lambda x: x[:2])
    with jax.default_matmul_precision("highest"):  # without TensorFloat-32
        expected = _value_and_gradients("xla", first(mask), dropout and first_two(dropout))(*exact)
    found = ours(query, key, value, gradient)
    row: dict[str, Any] = dict(case=case.name, kernel=chosen)
    for name, a, b in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        error = jnp.linalg.norm(a[:2].astype(jnp.float32) - b) / jnp.linalg.norm(b)
        row[f"error_{name}"] = float(error)
    row["ms"] = 1e3 * timing.median_seconds(repeats, ours, query, key, value, gradient)
    row["xla_ms"] = 1e3 * timing.median_seconds(repeats, plain, query, key, value, gradient)
    # Two products forward, five backward.
    flops = 7 * 2 * case.batch * case.queries * case.keys * case.width
    row["tflops"] = flops / row["ms"] / 1e9
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}


def first_two(dropout):
    """The dropout mask of the first two samples."""
    return dropout._replace(rows=dropout.rows[:2], columns=dropout.columns[:2])


def _value_and_gradients(name, mask, dropout):
    call = attention_impl.IMPLEMENTATIONS[name].call

    @jax.jit
    def both(query, key, value, gradient):
        out, pull = jax.vjp(lambda q, k, v: call(q, k, v, mask, dropout), query, key, value)
        return out, *pull(gradient)

    return both
