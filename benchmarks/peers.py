"""Seconds of this checkout, of an earlier one and of phenaki-pytorch at the paper's sizes, in turn.

    git worktree add ../before REVISION
    python -m venv ../peer && ../peer/bin/pip install phenaki-pytorch torch
    python benchmarks/peers.py --before=../before --peer=../peer/bin/python --turns=3

C-ViViT on one clip of 11 x 128 x 128 (encode, decode, a train step of L_2 + L_VQ) and a MaskGIT 512
wide of 6 layers over its 1536 tokens (a train step, a guided clip in 12 steps), in float32, with
random weights and clips. Each program is a process that is alone while it runs, with all cores:
another that holds its memory would slow it down. A turn runs each once, with all its cases. Prints
a table and writes benchmarks/results/peers_cpu.json. Seconds are medians over the turns, a ratio is
the median of those of the turns, with the lowest and the highest. The matmul rate of both libraries
is measured in the same processes.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
import speed
from absl import flags

from phenaki import cli
from phenaki.errors import UserError

HERE = Path(__file__).resolve().parents[1]
FLAGS = flags.FLAGS  # --repeats and --output are those of speed.py
BEFORE = flags.DEFINE_string("before", None, "an earlier checkout of this repository")
PEER = flags.DEFINE_string("peer", None, "the python of an environment with phenaki-pytorch")
TURNS = flags.DEFINE_integer("turns", 3, "processes of each program", lower_bound=1)
# Sampler of the released model, compared with the paper's of the others.
RELEASED = speed.RELEASED
CASES = (
    "C-ViViT encode, 1 clip",
    "C-ViViT decode, 1 clip",
    "C-ViViT train step, 1 clip",
    "MaskGIT 512x6 train step, 1 clip",
    speed.GUIDED,
    RELEASED,
)


def main(argv):
    """Runs every program in every turn, and prints the table."""
    del argv
    record.admit(FLAGS.output)
    all_given = {"before": BEFORE.value, "after": str(HERE), "peer": PEER.value}
    programs = {name: given for name, given in all_given.items() if given}
    check(programs)
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for turn in range(TURNS.value):
        for name, given in programs.items():
            turns[name].append(run(name, given))
            print(f"turn {turn + 1} of {TURNS.value}: {name} measured", file=sys.stderr, flush=True)
    rows = [row(case, turns) for case in CASES]
    print(table(rows))
    rates = {
        name: statistics.median(rate for t in of for rate in t["matmul"]) / 1e9
        for name, of in turns.items()
    }
    print("matmul, GFLOP/s: " + ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items()))
    record.write(
        FLAGS.output or "benchmarks/results/peers_cpu.json",
        ("jax", "jaxlib", "flax"),
        matmul_gflops=rates,
        rows=rows,
        turns=turns,
    )


def check(programs: dict[str, str]) -> None:
    """Raises `UserError` if a checkout or an interpreter is none."""
    if "before" in programs and not (Path(programs["before"]) / "benchmarks/speed.py").is_file():
        raise UserError(f"--before={programs['before']}: is no checkout of this repository.")
    if "peer" in programs:
        needed = [
            programs["peer"],
            "-c",
            "import torch, importlib.metadata as m; m.version('phenaki-pytorch')",
        ]
        if (
            not Path(programs["peer"]).is_file()
            or subprocess.run(needed, capture_output=True).returncode
        ):
            raise UserError(
                f"--peer={programs['peer']}: no python with the peer; in a new environment, run "
                "pip install phenaki-pytorch torch, and give its bin/python."
            )


def run(name: str, given: str) -> dict[str, Any]:
    """What one process of a program measured: seconds by case, matmul FLOP/s, versions."""
    options = dict(
        repeats=FLAGS.repeats, cases=CASES, steps=speed.STEPS, text=speed.TEXT, guided=speed.GUIDED
    )
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "measured.json")
        script = "peers_torch.py" if name == "peer" else "peers_ours.py"
        python = given if name == "peer" else sys.executable
        command = [python, str(HERE / "benchmarks" / script), json.dumps(options), str(output)]
        environment = dict(os.environ)
        if name != "peer":
            environment["PYTHONPATH"] = str(Path(given).resolve())
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return json.loads(output.read_text())


def row(case: str, turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Seconds of a case by program, and its ratios: after / before and peer / after."""

    def seconds(name):
        # Where others have no such sampler, the guided clip is what it is compared with.
        return [
            statistics.median(turn["seconds"].get(case) or turn["seconds"][speed.GUIDED])
            for turn in turns[name]
        ]

    found: dict[str, Any] = dict(case=case, n=len(turns["after"]))
    for name in turns:
        found[name] = statistics.median(seconds(name))
    for ratio, (above, below) in dict(ratio=("after", "before"), faster=("peer", "after")).items():
        if above in turns and below in turns:
            each = [a / b for a, b in zip(seconds(above), seconds(below), strict=True)]
            found[ratio] = [statistics.median(each), min(each), max(each)]
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| seconds | before | after | after / before | peer | peer / after |",
        "|---|---|---|---|---|---|",
    ]

    def one(value):
        if isinstance(value, list):
            return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"
        return "-" if value is None else f"{value:.3f}"

    for found in rows:
        columns = (one(found.get(name)) for name in ("before", "after", "ratio", "peer", "faster"))
        lines.append(f"| {found['case']} | {' | '.join(columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
