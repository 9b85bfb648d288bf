"""FLOPs and memory of a function from shapes alone, by walking its jaxpr."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
from jax.extend import core

from phenaki.planning.hlo import valid_taps

# Their results are fused into what reads them and take no memory.
_VIEWS = {
    "broadcast_in_dim", "convert_element_type", "copy", "expand_dims", "iota", "reshape", "squeeze",
    "stop_gradient",
}  # fmt: skip
# These read their operands from memory and write their result to memory.
_MATERIALIZED = {
    "argmax", "concatenate", "conv_general_dilated", "cumsum", "dot_general", "gather",
    "random_bits", "scatter", "scatter-add", "sort",
}  # fmt: skip
_SCOPES = {"checkpoint", "cond", "remat2", "scan", "while"}


def flops(function: Callable, *inputs: Any) -> dict[str, float]:
    """FLOPs of the matrix products and convolutions of `function(*inputs)` by network.

    A product of the same values counts once, as XLA computes it once. The network is the first
    module in the operation's path ("MaskGIT"), "other" outside of modules.
    """
    total: dict[str, float] = defaultdict(float)
    closed = jax.make_jaxpr(function)(*inputs)
    _Counter(total).walk(closed.jaxpr, [object() for _ in closed.jaxpr.invars], 1.0, "")
    return dict(total)


class _Counter:
    """Gives every value an identity, so that equal operations on equal values are found."""

    def __init__(self, total):
        self.total = total
        self.seen: dict[Any, list[Any]] = {}

    def walk(self, jaxpr, given, times, where):
        values = dict(zip(jaxpr.invars, given, strict=True))
        values |= {var: (id(var),) for var in jaxpr.constvars}

        def read(atom):
            return ("literal", str(atom.val)) if isinstance(atom, core.Literal) else values[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            path = f"{where}/{eqn.source_info.name_stack}"
            name = eqn.primitive.name
            inner = [body for param in eqn.params.values() for body in _jaxprs(param)]
            if name in _SCOPES:
                # Products inside are not merged with those outside: a checkpoint recomputes on
                # purpose. All branches of a cond count, an upper bound, and a while loop once.
                for body in inner:
                    trips = times * eqn.params.get("length", 1)
                    self.walk(body, [object() for _ in body.invars], trips, path)
                outputs = [object() for _ in eqn.outvars]
            elif inner and len(inner[0].invars) == len(inputs):
                outputs = self.walk(inner[0], inputs, times, path)
            elif name == "stop_gradient":
                outputs = inputs  # the same value: operations on it are merged
            else:
                params = tuple(sorted((k, str(v)) for k, v in eqn.params.items()))
                key = (name, params, *inputs)
                fresh = key not in self.seen
                outputs = self.seen.setdefault(key, [object() for _ in eqn.outvars])
                work = _work(eqn)
                if work and fresh:
                    part = re.search(r"\b[A-Z]\w*[a-z0-9]\w*", path)
                    self.total[part[0] if part else "other"] += times * work
            values |= dict(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def _jaxprs(param):
    for item in param if isinstance(param, tuple | list) else (param,):
        if isinstance(item, core.ClosedJaxpr):
            yield item.jaxpr
        elif isinstance(item, core.Jaxpr):
            yield item


def _work(eqn):
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        left = eqn.invars[0].aval.shape
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[d] for d in contracted)
    if eqn.primitive.name == "conv_general_dilated":
        p, (left, right) = eqn.params, (atom.aval.shape for atom in eqn.invars)
        out, n = eqn.outvars[0].aval.shape, eqn.params["dimension_numbers"]
        taps = 1
        for axis in range(len(p["window_strides"])):
            taps *= valid_taps(
                left[n.lhs_spec[2 + axis]],
                right[n.rhs_spec[2 + axis]],
                out[n.out_spec[2 + axis]],
                p["window_strides"][axis],
                p["padding"][axis][0],
                p["lhs_dilation"][axis],
                p["rhs_dilation"][axis],
            )
        return 2.0 * taps * out[n.out_spec[0]] * out[n.out_spec[1]] * right[n.rhs_spec[1]]
    return 0.0


def peak_bytes(function: Callable, *inputs: Any, ignore: Collection[tuple[int, ...]] = ()) -> int:
    """Peak bytes of the values that `function(*inputs)` computes, outputs included.

    Elementwise results that are read once are not stored, as XLA fuses them. Values of the shapes
    `ignore` do not count: parameters and their gradients, which are counted exactly elsewhere.
    """
    return _peak(jax.make_jaxpr(function)(*inputs).jaxpr, frozenset(ignore))


def _peak(jaxpr, ignore):
    uses: dict[Any, list[int]] = defaultdict(list)
    end = len(jaxpr.eqns)
    for index, atoms in enumerate((*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars)):
        for atom in atoms:
            if not isinstance(atom, core.Literal):
                uses[atom].append(index)
    last = {var: max(where) for var, where in uses.items()}
    size: dict[Any, int] = {}
    for index in reversed(range(end)):
        eqn = jaxpr.eqns[index]
        materialized = eqn.primitive.name in _MATERIALIZED or any(True for _ in inner_jaxprs(eqn))
        for var in eqn.outvars:
            readers = [jaxpr.eqns[i].primitive.name for i in uses[var] if i < end]
            fused = len(readers) == 1 and last[var] < end and readers[0] not in _MATERIALIZED
            virtual = not materialized and (eqn.primitive.name in _VIEWS or fused)
            known = virtual or var.aval.shape in ignore
            size[var] = 0 if known else math.prod(var.aval.shape) * _width(var)
            if virtual and var in last:  # its operands live as long as it would
                for atom in eqn.invars:
                    if not isinstance(atom, core.Literal):
                        last[atom] = max(last.get(atom, index), last[var])
    live = peak = 0
    ending: dict[int, int] = defaultdict(int)
    for index, eqn in enumerate(jaxpr.eqns):
        inside = max((_peak(body, ignore) for body in inner_jaxprs(eqn)), default=0)
        made = sum(size[var] for var in eqn.outvars)
        peak = max(peak, live + max(made, inside))
        live += made
        for var in eqn.outvars:
            ending[last.get(var, index)] += size[var]
        live -= ending.pop(index, 0)
    return max(peak, live)


def inner_jaxprs(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls."""
    for param in eqn.params.values():
        yield from _jaxprs(param)


def _width(var):
    dtype = var.aval.dtype
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize
