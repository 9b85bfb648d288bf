"""FLOPs, collectives and cycles of a compiled program, from its HLO text.

XLA's own cost analysis counts the body of a loop once; here it counts once per round.
"""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from phenaki.planning.hlo import (
    Instruction,
    attribute,
    flops,
    parse,
    shapes_of,
    size_of,
    source,
    trips,
)

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


class Costs(NamedTuple):
    """Costs of one call on one device; bytes are the larger of a collective's input and output."""

    flops: dict[str, float]  # by the operation's name in the source
    collectives: dict[str, tuple[int, float]]  # kind -> (number, bytes)
    outside: float  # bytes received by collectives that no product's fusion contains
    cycles: float  # as the TPU compiler estimates them, products at most at `FRACTION` of the peak
    kernels: float  # cycles of Pallas kernels


# Of the matrix units' peak: the compiler's estimates put large products at 99 %, which no chip
# sustains.
FRACTION = 0.9


def count(
    text: str, peak: float = math.inf, kernel: Callable[[Instruction], float] = lambda line: 0.0
) -> Costs:
    """The costs of a program's entry: matrix products, convolutions, kernels and collectives.

    `peak` is the FLOPs of a cycle, `kernel` gives the cycles of one call of a Pallas kernel and 0
    for other instructions.
    """
    computations, entry = parse(text)
    fused_work = functools.cache(lambda name: _work(computations, name))
    calls = _calls(computations, entry, fused_work)
    cycles = kernel_cycles = 0.0
    done: dict[str, float] = defaultdict(float)
    found: dict[tuple[str, ...], tuple[str, float, float, bool]] = {}
    for (name, fused, in_product), times in calls.items():
        shapes = {line.name: line.type for line in computations[name]}
        for line in computations[name]:
            work = flops(line, shapes)
            if work:
                done[source(line)] += times * work
            if not fused:  # a fusion has an estimate, and its parts have it again
                kernel_cycles += times * kernel(line)
                estimate = re.search(r'"estimated_cycles":"(\d+)"', line.rest)
                if estimate:
                    products = fused_work(_callee(line)) if line.opcode == "fusion" else work
                    cycles += times * max(int(estimate[1]), products / peak / FRACTION)
            kind = line.opcode.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            if name.startswith("all-reduce-scatter"):  # the TPU compiler's reduce-scatter
                kind = "reduce-scatter"
            moved = [size_of(shapes.get(operand, "")) for operand in line.operands]
            # The type of an asynchronous start has the input, too.
            given = size_of(line.type) - (sum(moved) if line.opcode.endswith("-start") else 0)
            # An asynchronous collective appears in every fusion it overlaps, in several layouts.
            # Its channel tells that these are one, with its source and shape: all of a shard_map
            # have channel 1.
            channel = re.search(r"channel_id=(\d+)", line.rest)
            key: tuple[str, ...] = (name, line.name, f"{in_product}")
            if fused and channel:
                key = (kind, channel[1], source(line), f"{shapes_of(line.type)}")
            inside = in_product or (key in found and found[key][3])
            found[key] = kind, times, times * max(sum(moved), given), inside
    together: dict[str, tuple[int, float]] = {}
    for kind, times, size, _ in found.values():
        before = together.get(kind, (0, 0.0))
        together[kind] = (before[0] + round(times), before[1] + size)
    outside = sum(received(kind, size) for kind, _, size, inside in found.values() if not inside)
    return Costs(dict(done), together, outside, cycles, kernel_cycles)


def received(kind: str, size: float) -> float:
    """Bytes that a device receives; an all-reduce is a reduce-scatter and an all-gather."""
    return 2 * size if kind == "all-reduce" else size


def _calls(computations, entry, work):
    """How often each computation runs, by (name, is it fused, does that fusion have products)."""
    total: dict[tuple[str, bool, bool], float] = defaultdict(float)

    def call(name, times, fused=False, in_product=False):
        total[name, fused, in_product] += times
        for line in computations[name]:
            if line.opcode == "while":
                (condition,) = attribute(r"condition=%?([\w.\-]+)", line.rest)
                rounds = trips(line, computations[name], computations[condition])
                (body,) = attribute(r"body=%?([\w.\-]+)", line.rest)
                call(body, times * rounds, fused, in_product)
            elif line.opcode == "conditional":
                branches = re.search(r"branch_computations=\{([^}]*)\}", line.rest)
                names = re.findall(r"%?([\w.\-]+)", branches[1]) if branches else []
                names += re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", line.rest)
                for branch in names:  # every branch counts: an upper bound
                    call(branch, times, fused, in_product)
            elif callee := _callee(line):
                if line.opcode == "fusion" and not fused:
                    call(callee, times, True, work(callee) > 0)
                else:
                    call(callee, times, fused, in_product)

    call(entry, 1.0)
    return total


def _callee(line):
    if line.opcode not in ("fusion", "call", "async-start"):
        return None
    callee = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", line.rest)
    return callee and callee[1]


def _work(computations, name):
    """FLOPs of a fused computation, fusions inside it included."""
    shapes = {line.name: line.type for line in computations[name]}
    inner = (_work(computations, called) for called in map(_callee, computations[name]) if called)
    return sum(flops(line, shapes) for line in computations[name]) + sum(inner)
