"""Trains short runs with a known failure, and healthy ones: does scripts/doctor.py tell them apart?

make broken-runs                              all of them, some minutes
python tests/campaigns/broken_runs.py mask    those with "mask" in their failure
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from environment import ROOT

STEPS = {1: 1500, 2: 800}  # of each stage, in which a healthy run learns something


class BrokenRun(NamedTuple):
    """A failure: a line of phenaki/`file`, or `flags` of training; the doctor must fail `check`."""

    what: str
    stage: int
    check: str  # "" for none
    file: str = ""
    old: str = ""
    new: str = ""
    flags: tuple[str, ...] = ()


BROKEN_RUNS = (
    BrokenRun("none, stage 1", 1, ""),
    BrokenRun("none, stage 2", 2, ""),
    BrokenRun(
        "attention over time without its causal mask",
        1,
        "the past does not depend on the future",
        "models/cvivit.py",
        "self.encoder_time = Transformer(self.time_depth, causal=True",
        "self.encoder_time = Transformer(self.time_depth, causal=False",
    ),
    BrokenRun(
        "a collapsed codebook",
        1,
        "the codebook is used",
        flags=("--config.codebook.revive_until=0",),
    ),
    BrokenRun(
        "an inverted mask",
        2,
        "the loss is of the masked tokens",
        "train/maskgit.py",
        "schedules.apply_mask(tokens, mask, model.mask_id)",
        "schedules.apply_mask(tokens, ~mask, model.mask_id)",
    ),
    BrokenRun(
        "guidance that is never trained",
        2,
        "guidance is trained",
        flags=("--config.drop_text=0.0",),
    ),
)


def run(copy: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Runs a script of the copy, with the packages of the copy instead of the installed ones."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment)


def train(copy: Path, stage: int, workdir: Path, tokenizer: Path, flags=()) -> None:
    """A short run of the demo preset; prints its health warnings, or its errors if it fails."""
    name = "cvivit" if stage == 1 else "maskgit"
    arguments = [f"--config=configs/{name}.py:demo", f"--workdir={workdir}"]
    steps = STEPS[stage]
    arguments += [f"--config.train.steps={steps}", f"--config.optim.decay={steps}"]
    arguments += ["--config.train.log_every=10", *flags]
    if stage == 2:
        arguments += [f"--tokenizer={tokenizer}", "--config.train.sample_count=0"]
    done = run(copy, f"scripts/train_{name}.py", *arguments)
    if done.returncode:
        sys.exit(f"training failed:\n{done.stderr[-2000:]}")
    for line in done.stderr.splitlines():
        if "not so:" in line:
            print("    while training:", line.partition("] ")[2])


def diagnosed(copy: Path, broken: BrokenRun, directory: Path) -> bool:
    """Whether the doctor fails the check of a broken run, or passes a healthy one."""
    workdir = directory / broken.what.replace(" ", "_").replace(",", "")
    path = copy / "phenaki" / broken.file
    text = path.read_text() if broken.file else ""
    if broken.file:
        assert text.count(broken.old) == 1, f"no such line in {broken.file}"
        path.write_text(text.replace(broken.old, broken.new))
    train(copy, broken.stage, workdir, directory / "none_stage_1", broken.flags)
    done = run(copy, "scripts/doctor.py", f"--run={workdir}")
    if broken.file:
        path.write_text(text)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines:
        sys.exit(f"the doctor failed:\n{done.stderr[-2000:]}")
    for line in lines:
        print("   ", line)
    failed = [line for line in lines if line.startswith("FAIL")]
    return any(broken.check in line for line in failed) if broken.check else not failed


def main(words: list[str]) -> int:
    """Prints the doctor's findings for every run; returns 1 if one of its verdicts is wrong."""
    verdicts = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        copy = directory / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        used = run(copy, "-c", "import phenaki; print(phenaki.__file__)").stdout
        assert used.startswith(str(copy)), f"runs {used} instead of the copy"
        for broken in BROKEN_RUNS:
            # Stage 2 trains on the tokens of the first run.
            if broken is BROKEN_RUNS[0] or not words or any(w in broken.what for w in words):
                print(f"failure: {broken.what}", flush=True)
                verdicts.append(diagnosed(copy, broken, directory))
                print(f"  {'diagnosed' if broken.check else 'healthy'}: {verdicts[-1]}", flush=True)
    print(f"{sum(verdicts)} of {len(verdicts)} runs diagnosed correctly")
    return int(not all(verdicts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
