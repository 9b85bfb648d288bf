"""Median wall time of a compiled call."""

import statistics
import time

import jax


def median_seconds(repeats: int, function, *arguments) -> float:
    """Median wall time of `repeats` calls, after one that compiles."""
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return statistics.median(times)
