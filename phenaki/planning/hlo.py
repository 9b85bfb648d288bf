"""The HLO text of a compiled program: instructions, their sizes and their FLOPs."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip

# Matrix products in each kernel of JAX's splash attention, which states no cost. The backward
# kernel computes the scores again, the gradients of values and scores, and from these the
# gradients of queries and keys.
SPLASH = {"fwd": 2, "dkv": 5}


class Instruction(NamedTuple):
    """One HLO instruction: `type` of its result, `rest` its attributes.

    The operand of a constant is its value.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """(computations by name, the entry's name)."""
    written: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = written.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line == "}":
            current = None
        elif current is not None and re.match(r"\s+(ROOT )?%?[\w.\-]+ = ", line):
            current.append(line)
        elif current:
            current[-1] += line  # the attributes of a kernel take several lines
    return {name: list(map(_instruction, lines)) for name, lines in written.items()}, entry


def _instruction(line):
    name, _, right = line.strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    kind, right = right[:end], right[end:].strip()
    opening = right.index("(")
    closing = _closing(right, opening)
    operands = tuple(re.findall(r"%([\w.\-]+)", right[opening : closing + 1]))
    if right[:opening] == "constant":
        operands = (right[opening + 1 : closing],)
    return Instruction(
        name.removeprefix("%"), kind, right[:opening], operands, right[closing + 1 :]
    )


def _closing(text, start):
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    raise ValueError(f"unbalanced: {text[:80]}")


def shapes_of(kind: str) -> list[tuple[str, tuple[int, ...]]]:
    """(type, shape) of every array in an HLO type."""
    found = re.findall(r"(\w+)\[([\d,]*)\]", kind)
    return [(t, tuple(map(int, s.split(","))) if s else ()) for t, s in found if t in BYTES]


def size_of(kind: str) -> int:
    """Bytes of an HLO type."""
    return sum(BYTES[t] * math.prod(shape) for t, shape in shapes_of(kind))


def source(line: Instruction) -> str:
    """The operation's name in the traced program."""
    match = re.search(r'op_name="([^"]*)"', line.rest)
    return match[1] if match else "?"


def trips(
    line: Instruction, outside: Sequence[Instruction], condition: Sequence[Instruction]
) -> int:
    """Rounds of a loop: the compiler's trip count, or from its condition "counter < limit".

    At most so many, where the counter's first value is computed.
    """
    known = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', line.rest)
    if known:
        return int(known[1])
    inside = {other.name: other for other in condition}
    around = {other.name: other for other in outside}
    given = around[line.operands[0]].operands

    def made(name, lines):
        found = lines.get(name)
        while found and found.opcode in ("copy", "bitcast", "convert"):
            found = lines.get(found.operands[0])
        return found

    def is_carried(name):
        found = made(name, inside)
        return found is not None and found.opcode == "get-tuple-element"

    def value(name, lines):
        found = made(name, lines)
        if found and found.opcode == "get-tuple-element" and lines is inside:
            (index,) = attribute(r"index=(\d+)", found.rest)
            return value(given[int(index)], around)
        return int(found.operands[0]) if found and found.opcode == "constant" else None

    if condition[-1].opcode == "compare" and "direction=LT" in condition[-1].rest:
        start, limit = (value(name, inside) for name in condition[-1].operands)
        if limit is not None and (start is not None or is_carried(condition[-1].operands[0])):
            # Decoding begins at its last step if nothing is masked: no counter begins below 0.
            return limit - (start or 0)
    raise ValueError(f"a loop without a known number of rounds: {line.name} {condition[-1]}")


def flops(line: Instruction, shapes: Mapping[str, str]) -> float:
    """FLOPs of a product, convolution or kernel; `shapes` has the types of its operands."""
    if line.opcode == "dot":
        (contracted,) = attribute(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)
        left = shapes_of(shapes[line.operands[0]])[0][1]
        inner = math.prod(int(left[int(d)]) for d in contracted.split(",") if d)
        return 2.0 * math.prod(shapes_of(line.type)[0][1]) * inner
    if line.opcode == "convolution":
        left, right = (shapes_of(shapes[operand])[0][1] for operand in line.operands[:2])
        return _convolution(shapes_of(line.type)[0][1], left, right, line.rest)
    if line.opcode == "custom-call":
        return _kernel(line, shapes)
    return 0.0


def _kernel(line, shapes):
    stated = re.search(r'cost_estimate[^}]*?flops\\?"?:\\?"?(\d+)', line.rest)
    splash = re.match(r"splash_mha_(fwd|dkv)_", line.name)
    if stated or splash is None or 'custom_call_target="tpu_custom_call"' not in line.rest:
        return float(stated[1]) if stated else 0.0
    inputs = [shapes_of(shapes[operand])[0] for operand in line.operands]
    query, key = [shape for kind, shape in inputs if kind in ("bf16", "f32")][:2]
    return 2.0 * SPLASH[splash[1]] * math.prod(query) * key[-2]  # of [.. s e] and [.. u e]


def attribute(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern that XLA's text always has."""
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no {pattern} in the compiler's text: {text[:200]}")
    return match.groups()


def _convolution(out, left, right, rest):
    left_labels, right_labels, out_labels = attribute(r"dim_labels=(\w+)_(\w+)->(\w+)", rest)
    window = re.search(r"window=\{([^}]*)\}", rest)
    fields = dict(item.split("=") for item in window[1].split()) if window else {}
    taps = 1
    for axis, label in enumerate(sorted(c for c in out_labels if c.isdigit())):

        def field(name, default, axis=axis):
            return fields[name].split("x")[axis] if name in fields else default

        taps *= valid_taps(
            left[left_labels.index(label)],
            right[right_labels.index(label)],
            out[out_labels.index(label)],
            int(field("stride", 1)),
            int(str(field("pad", "0_0")).split("_")[0]),
            int(field("lhs_dilate", 1)),
            int(field("rhs_dilate", 1)),
        )
    others = (
        out[out_labels.index("b")] * out[out_labels.index("f")] * right[right_labels.index("i")]
    )
    return 2.0 * taps * others


@functools.cache
def valid_taps(inputs, window, outputs, stride=1, low=0, dilation=1, window_dilation=1) -> int:
    """Pairs of an output and a window element that read an input element, along one axis.

    Padding and the holes of a dilated input cost nothing. The TPU compiler writes a batch axis as a
    dilated window axis; its pairs are those of equal index.
    """
    at = np.arange(outputs)[:, None] * stride - low + np.arange(window) * window_dilation
    return int(((at >= 0) & (at <= (inputs - 1) * dilation) & (at % dilation == 0)).sum())
