"""The operations that took longest in a profile, by part of the step, as text.

    pip install xprof && python benchmarks/profile_ops.py runs/maskgit/profile --top=20

Parts are the scopes of `phenaki.train`: tokenizer, text, maskgit, critic, optimizer. On TPUs and
GPUs the times are xprof's table of HLO operations. A CPU has no such table: there they are those of
the threads that run the operations, with the scopes that xprof reads from the stored programs.
"""

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jax.profiler import ProfileData
from xprof.convert import raw_to_tool_data

PARTS = ("tokenizer", "text", "maskgit", "critic", "optimizer")
CONTAINERS = re.compile(r"(while|call|conditional)[.\d]*$")  # their time is that of others


class Op(NamedTuple):
    """One execution, or all executions, of an operation."""

    part: str
    name: str
    microseconds: float


def part_of(scope: str) -> str:
    """The first part in the scope of an operation, such as jit(step)/jvp(maskgit)/dot_general."""
    return next((word for word in re.findall(r"\w+", scope) if word in PARTS), "other")


def device_ops(file: Path) -> Iterator[Op]:
    """Those of xprof's table of HLO operations; none of a CPU."""
    table = json.loads(_read(file, "hlo_stats"))
    columns = [column["id"] for column in table["cols"]]
    for row in table["rows"]:
        values = dict(zip(columns, (cell["v"] for cell in row["c"]), strict=True))
        scope = values["tf_op_name"] or ""
        yield Op(part_of(scope), values["hlo_op_name"], float(values["total_self_time"]))


def host_ops(file: Path) -> Iterator[Op]:
    """Those that the threads of a CPU ran."""
    raw_to_tool_data.xspace_to_tool_names([str(file)])  # writes the programs next to the file
    parts: dict[str, dict[str, str]] = {}
    data = ProfileData.from_file(str(file))  # which has to outlive its parts
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" not in stats or CONTAINERS.match(event.name):
                    continue
                program = f"{stats['hlo_module']}({stats['program_id']})"
                if program not in parts:
                    parts[program] = dict(_parts(file, program))
                part = parts[program].get(event.name, "other")
                yield Op(part, event.name, event.duration_ns / 1e3)


def _parts(file: Path, program: str) -> Iterator[tuple[str, str]]:
    """(operation, its part) of a stored program; a fusion has that of most of its operations."""
    options = {"module_name": program, "type": "short_txt", "show_metadata": 1}
    text = _read(file, "graph_viewer", graph_viewer_options=options)
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    computation = ""
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?([\w.-]+) (?:\(.*\) -> .*)?\{", line):
            computation = head[1]
        operation = re.match(r"\s+(?:ROOT )?([\w.-]+) = ", line)
        if operation is None:
            continue
        scope = re.search(r'op_name="([^"]*)"', line)
        called = re.search(r"calls=([\w.-]+)", line)
        if called and inside[called[1]]:
            yield operation[1], inside[called[1]].most_common(1)[0][0]
        elif scope:
            inside[computation][part_of(scope[1])] += 1
            yield operation[1], part_of(scope[1])


def _read(file: Path, tool: str, **options) -> str:
    data, _ = raw_to_tool_data.xspace_to_tool_data([str(file)], tool, options)
    return data if isinstance(data, str) else data.decode()


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("profile", type=Path, help="WORKDIR/profile")
    parser.add_argument("--top", type=int, default=20, help="operations to print")
    arguments = parser.parse_args()
    files = sorted(arguments.profile.rglob("*.xplane.pb"))
    if not files:
        raise SystemExit(f"error: {arguments.profile}: no profile; train with --profile=100:110")
    ops = list(device_ops(files[-1])) or list(host_ops(files[-1]))
    times: Counter[tuple[str, str]] = Counter()
    for op in ops:
        times[op.part, op.name] += op.microseconds  # type: ignore[assignment]
    total = sum(times.values())
    print(f"{files[-1]}: {total / 1e3:.1f} ms in {len(times)} operations\n")
    parts: Counter[str] = Counter()
    for (part, _), value in times.items():
        parts[part] += value
    for part, value in parts.most_common():
        print(f"{part:10} {value / 1e3:10.1f} ms  {value / total:6.1%}")
    print()
    for (part, name), value in times.most_common(arguments.top):
        print(f"{part:10} {value / 1e3:10.1f} ms  {value / total:6.1%}  {name}")


if __name__ == "__main__":
    main()
