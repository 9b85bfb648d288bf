"""Programs for pods, of this checkout and of an earlier one, compiled in one run, measured alike.

    pip install -e '.[tpu]'
    git worktree add ../before REVISION
    python benchmarks/pods.py --before=../before --cases=t2v-v5e,sampler

Both are compiled by XLA's TPU compiler, without a TPU, and counted by this checkout's
`phenaki.planning.costs`: docs/pods.md says what the figures mean. A case of 256 chips takes minutes
to half an hour of a processor. Prints a table per case and adds it to `--output`. With
`--keep=FOLDER`, programs that an earlier run compiled are read from there: a run that was stopped
continues. A checkout with changes that are not committed is always compiled.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import record
from absl import flags

from phenaki import cli
from phenaki.errors import UserError
from phenaki.planning import chips, compiled, costs, schedules

HERE = Path(__file__).resolve().parents[1]


class Case(NamedTuple):
    """A program of a preset of configs/maskgit.py on a pod; `mesh` is in the order of its axes.

    A sampler decodes as many rows as data and fsdp split. With `after`, the mesh of this checkout's
    program, both are counted per row.
    """

    preset: str
    topology: str
    mesh: tuple[int, int, int, int]
    program: str = "train step"
    after: tuple[int, int, int, int] | None = None


CASES = {
    "t2v-v5e": Case("t2v", "v5e:16x16", (16, 2, 8, 1)),
    "t2v-v5p": Case("t2v", "v5p:4x4x8", (32, 1, 4, 1)),
    "nuwa-v6e": Case("nuwa", "v6e:16x16", (64, 4, 1, 1)),
    "sampler": Case("t2v", "v5e:16x16", (16, 2, 8, 1), "sampler"),
    # As many prompts as chips: the same parts of the parameters, seen as another mesh.
    "full-batch": Case("t2v", "v5e:16x16", (16, 2, 8, 1), "sampler", (16, 16, 1, 1)),
}
MEMORY = "memory.json"  # that a compiled program leaves
BEFORE = flags.DEFINE_string("before", None, "the earlier checkout", required=True)
CHOSEN = flags.DEFINE_list("cases", list(CASES), f"of {', '.join(CASES)}")
CACHED = flags.DEFINE_bool("cached", False, "captions come encoded, so that no step has T5 in it")
KEEP = flags.DEFINE_string("keep", None, "folder of compiled programs")
OUTPUT = flags.DEFINE_string("output", "benchmarks/results/pods_before.json", "JSON")


def main(argv):
    """Compiles and prints every case."""
    del argv
    unknown = set(CHOSEN.value) - set(CASES)
    if unknown:
        raise UserError(f"--cases: no {', '.join(sorted(unknown))}; known: {', '.join(CASES)}.")
    record.admit(OUTPUT.value)
    before = Path(BEFORE.value).resolve()
    if not (before / "phenaki" / "planning" / "programs.py").is_file():
        raise UserError(f"--before={BEFORE.value}: is no checkout of this repository.")
    output = Path(OUTPUT.value)
    rows = json.loads(output.read_text())["rows"] if output.is_file() else {}
    for name in CHOSEN.value:
        case = CASES[name]
        sides = (case, before), (case._replace(mesh=case.after or case.mesh), HERE)
        both = [measure(*side, CACHED.value, KEEP.value) for side in sides]
        title = name + (" cached" if CACHED.value else "")
        rows[title] = dict(case=case._asdict(), before=both[0], after=both[1])
        print(table(title, *both), end="\n\n", flush=True)
        record.write(output, ("jax", "jaxlib", "libtpu"), rows=rows)


def measure(case: Case, tree: Path, cached: bool, keep: str | None) -> dict[str, float]:
    """The figures of one device for `case`, of the checkout `tree`; of a row if `case.after`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept(case, tree, cached, keep) or Path(temporary)
        if not (folder / MEMORY).is_file():
            command = [sys.executable, str(Path(__file__).with_name("pods_program.py"))]
            given = json.dumps(case._asdict() | {"cached": cached})
            paths = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
            environment = os.environ | {"PYTHONPATH": paths}
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            subprocess.run([*command, given, str(folder)], cwd=tree, env=environment, check=True)
        found = figures(folder, chips.parse(case.topology).chip)
    rows = case.mesh[0] * case.mesh[1] if case.after else 1
    whole = "GiB of memory"  # of the device
    return {name: value / (1 if name == whole else rows) for name, value in found.items()}


def kept(case: Case, tree: Path, cached: bool, keep: str | None) -> Path | None:
    """The folder in `keep` for a program of a checkout; None if there is none for it."""
    if keep is None:
        return None
    git = functools.partial(subprocess.run, cwd=tree, check=True, capture_output=True, text=True)
    if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout:
        return None
    revision = git(["git", "rev-parse", "HEAD"]).stdout[:12]
    mesh = "x".join(map(str, case.mesh))
    parts = (revision, case.preset, case.topology, mesh, case.program, metadata.version("libtpu"))
    name = "-".join(parts) + ("-cached" if cached else "")
    return Path(keep).resolve() / re.sub(r"[^\w.-]", "_", name)


def figures(folder: Path, chip: chips.Chip) -> dict[str, float]:
    """What `pods_program.py` left in `folder`, counted."""
    known = {
        tuple((schedules.NAMES[kind], tuple(shape)) for kind, shape in types): rounds
        for types, rounds in json.loads((folder / "grids.json").read_text())
    }
    scheduled = schedules.bundles(folder / "schedules")
    kernel = functools.partial(schedules.cycles, known=known, scheduled=scheduled)
    text = (folder / "program.txt").read_text()
    found = costs.count(text, chip.flops / chip.clock, kernel=kernel)
    received = sum(costs.received(kind, size) for kind, (_, size) in found.collectives.items())
    return {
        "modelled seconds": compiled.modelled_seconds(found, chip),
        "million cycles": found.cycles / 1e6,
        "million cycles of kernels": found.kernels / 1e6,
        "million cycles, all": (found.cycles + found.kernels) / 1e6,
        "GB received": received / 1e9,
        "GB outside of products": found.outside / 1e9,
        "GB gathered": found.collectives.get("all-gather", (0, 0.0))[1] / 1e9,
        "GiB of memory": json.loads((folder / MEMORY).read_text()) / 2**30,
        "teraFLOPs": sum(found.flops.values()) / 1e12,
    }


def table(title: str, before: dict[str, float], after: dict[str, float]) -> str:
    """Both columns and their ratio, in Markdown."""
    lines = [f"| {title}: a device and step | before | after | ratio |", "|---|---|---|---|"]
    for name, old in before.items():
        ratio = f"{after[name] / old:.3f}" if old else "-"
        lines.append(f"| {name} | {old:.4g} | {after[name]:.4g} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
