"""Trains both stages of :mini on four processes, kills them twice, and compares with one process.

python tests/campaigns/pod_runs.py [STEPS]    200 by default, an hour on two cores

Data, fsdp and sequence span the four processes (two devices each), in float32. The run is killed
at a third and at half of its steps; then two processes resume it on another mesh. Prints the
largest relative differences of loss and gradient, and that of the parameters at the end; the same
for one process on the mesh of the four: rounding grows from step to step, and of two codes that
began as the same vector it decides which is used.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from environment import ROOT

from phenaki.io import checkpoint
from phenaki.train import logs

SCRIPTS = {"cvivit": "train_cvivit.py", "maskgit": "train_maskgit.py"}
FOUR = dict(data=2, fsdp=2, sequence=2, tensor=1)
TWO = dict(data=1, fsdp=2, sequence=1, tensor=2)
ONE = dict(data=1, fsdp=1, sequence=1, tensor=1)


def start(stage: str, run: Path, steps: int, processes: int, devices: int, mesh: dict, tokenizer):
    """The processes of one job."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, ROOT / "scripts" / SCRIPTS[stage], f"--config=configs/{stage}.py:mini",
        f"--workdir={run}", f"--config.train.steps={steps}", "--config.train.log_every=1",
        f"--config.train.save_every={max(1, steps // 10)}",
        f"--config.train.sample_every={10 * steps}",
        f"--config.optim.warmup={max(1, steps // 10)}", "--config.dtype=float32",
        *(f"--config.mesh.{axis}={size}" for axis, size in mesh.items()),
    ]  # fmt: skip
    if stage == "maskgit":
        command += [f"--tokenizer={tokenizer}"]
    if processes > 1:
        command += [f"--coordinator=localhost:{port}", f"--processes={processes}"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    jobs = []
    for index in range(processes):
        which = [f"--process={index}"] if processes > 1 else []
        log = (run.parent / f"{run.name}_{processes}_{index}.log").open("ab")
        jobs.append(
            subprocess.Popen(
                [*map(str, command), *which], stdout=log, stderr=log, cwd=ROOT, env=environment
            )
        )
    return jobs


def finish(jobs: list[subprocess.Popen]) -> None:
    codes = [job.wait() for job in jobs]
    if any(codes):
        raise SystemExit(f"the processes ended with {codes}")


def kill_at(step: int, run: Path, jobs: list[subprocess.Popen]) -> None:
    """Kills all processes, the last first, once `step` is logged."""
    while len(logs.read(run) if (run / "metrics.jsonl").exists() else []) < step:
        if any(job.poll() is not None for job in jobs):
            raise SystemExit(f"a process ended before step {step}: {[job.poll() for job in jobs]}")
        time.sleep(0.2)
    for job in reversed(jobs):
        job.kill()
    for job in jobs:
        job.wait()


def compare(stage: str, case: str, one: Path, several: Path) -> None:
    ours, theirs = (
        [{k: v for k, v in line.items() if "second" not in k} for line in logs.read(run)]
        for run in (several, one)
    )
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    names = ("loss/total", "grad_norm")
    for end in (10, len(ours) // 2, len(ours)):
        worst = {
            name: max(
                abs(a[name] - b[name]) / b[name]
                for a, b in zip(ours[:end], theirs[:end], strict=True)
            )
            for name in names
        }
        shown = ", ".join(f"{name} {value:.1e}" for name, value in sorted(worst.items()))
        print(f"{stage}, {case}: steps 1 to {end}, largest relative difference: {shown}")
    last, expected = (
        np.mean([line["loss/total"] for line in rows[-10:]]) for rows in (ours, theirs)
    )
    print(f"{stage}, {case}: mean of the last ten losses: {last:.6f}, of one device {expected:.6f}")
    got, expected = (jax.tree.leaves(checkpoint.load_run(run)[0]) for run in (several, one))
    difference = np.sqrt(sum(np.square(a - b).sum() for a, b in zip(got, expected, strict=True)))
    norm = np.sqrt(sum(np.square(b).sum() for b in expected))
    print(f"{stage}, {case}: parameters at the end differ by {difference / norm:.2e} of their norm")


def main(steps: int, root: Path) -> None:
    tokenizer = root / "cvivit_one"
    for stage in SCRIPTS:
        one, several = root / f"{stage}_one", root / f"{stage}_several"
        one.parent.mkdir(exist_ok=True)
        finish(start(stage, one, steps, 1, 1, ONE, tokenizer))
        for moment in (steps // 3, steps // 2):
            kill_at(moment, several, start(stage, several, steps, 4, 2, FOUR, tokenizer))
            print(f"{stage}: killed four processes after step {moment}", flush=True)
        finish(start(stage, several, steps, 2, 2, TWO, tokenizer))
        compare(stage, "four processes, killed, two", one, several)
        whole = root / f"{stage}_whole"
        finish(start(stage, whole, steps, 1, 8, FOUR, tokenizer))
        compare(stage, "one process, the same mesh", one, whole)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, Path(tempfile.mkdtemp()))
