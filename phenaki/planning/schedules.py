"""Cycles of Pallas kernels, for which the TPU compiler's HLO has no estimate.

The compiler schedules one round of a kernel's grid into bundles, which take a cycle each unless
they wait. So a call takes bundles x rounds: without stalls, and with a loop inside counted once.
The bundles are those of its dumped schedules (`chips.plan_on_cpu`), the rounds those of the traced
program.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from phenaki.planning.hlo import Instruction, shapes_of
from phenaki.planning.trace import inner_jaxprs

Types = tuple[tuple[str, tuple[int, ...]], ...]  # (HLO type, shape) of operands, then results
NAMES = {
    "bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64", "bool": "pred",
    "int8": "s8", "uint8": "u8", "int16": "s16", "uint16": "u16", "int32": "s32", "uint32": "u32",
    "int64": "s64", "uint64": "u64",
}  # fmt: skip
TARGET = 'custom_call_target="tpu_custom_call"'


def rounds(jaxpr: Any) -> dict[Types, int]:
    """Rounds of the grid of every kernel in a traced program, by the types of its arrays."""
    found: dict[Types, int] = {}
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "pallas_call":
            arrays = (atom.aval for atom in (*eqn.invars, *eqn.outvars))
            types = tuple((NAMES[jnp.dtype(a.dtype).name], tuple(a.shape)) for a in arrays)
            found[types] = math.prod(map(int, eqn.params["grid_mapping"].grid))
        else:
            for body in inner_jaxprs(eqn):
                found |= rounds(body)
    return found


def bundles(folder: Path) -> dict[str, int]:
    """Bundles of every scheduled operation, by its name in the HLO."""
    found = {}
    for path in folder.glob("*schedule-analysis_final_bundles.txt"):
        name = re.fullmatch(r"\d+-(.+)-\d+-schedule-analysis_final_bundles\.txt", path.name)
        total = re.search(r"total scheduled bundles:\s+(\d+)", path.read_text()[:2000])
        if name and total:
            found[name[1]] = int(total[1])
    return found


def cycles(line: Instruction, known: Mapping[Types, int], scheduled: Mapping[str, int]) -> float:
    """Cycles of one call of the kernel `line`; 0 for another instruction.

    Raises:
        ValueError: the program or the schedules do not have this kernel.
    """
    if TARGET not in line.rest:
        return 0.0
    # The layout constraints repeat the operands' types: "{bf16[2,4]{1,0}, f32[4]{0}}".
    operands = line.rest.partition("operand_layout_constraints={")[2].partition("}}")[0]
    types = tuple(shapes_of(operands) + shapes_of(line.type))
    if types not in known or line.name not in scheduled:
        raise ValueError(f"a kernel without known rounds or bundles: {line.name} {types}")
    return float(known[types] * scheduled[line.name])
