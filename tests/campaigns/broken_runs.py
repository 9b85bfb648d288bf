"""Trains short runs that are ill on purpose, and one that is well: does the doctor name each?

make illnesses                   all of them, some minutes
python tests/campaigns/broken_runs.py mask    those whose illness contains "mask"
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from environment import ROOT

STEPS = {1: 1500, 2: 800}  # of each stage: a run that is well must have learned something


class Illness(NamedTuple):
    """What is wrong: a line of phenaki/`file`, or `flags` of training; the doctor fails `check`."""

    what: str
    stage: int
    check: str  # "" for none
    file: str = ""
    old: str = ""
    new: str = ""
    flags: tuple[str, ...] = ()


ILLNESSES = (
    Illness("none, stage 1", 1, ""),
    Illness("none, stage 2", 2, ""),
    Illness(
        "attention over time without its causal mask",
        1,
        "the past does not depend on the future",
        "tokenizers/cvivit.py",
        "self.encoder_time = Transformer(self.time_depth, causal=True",
        "self.encoder_time = Transformer(self.time_depth, causal=False",
    ),
    Illness(
        "a collapsed codebook",
        1,
        "the codebook is used",
        flags=("--config.codebook.revive_until=0",),
    ),
    Illness(
        "an inverted mask",
        2,
        "the loss is of the hidden codes",
        "train/step_maskgit.py",
        "masking.apply_mask(codes, mask, model.mask_id)",
        "masking.apply_mask(codes, ~mask, model.mask_id)",
    ),
    Illness(
        "guidance that is never trained",
        2,
        "guidance is trained",
        flags=("--config.drop_text=0.0",),
    ),
)


def run(copy: Path, *arguments: object) -> subprocess.CompletedProcess:
    """A script of the copy, with the packages of the copy instead of those installed."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment)


def train(copy: Path, stage: int, workdir: Path, tokenizer: Path, flags=()) -> None:
    """A short run of the demo preset; what it says on stderr is shown if it fails."""
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


def answer(copy: Path, illness: Illness, directory: Path) -> bool:
    """Whether the doctor fails the illness's check, and passes a run that is well."""
    workdir = directory / illness.what.replace(" ", "_").replace(",", "")
    path = copy / "phenaki" / illness.file
    text = path.read_text() if illness.file else ""
    if illness.file:
        assert text.count(illness.old) == 1, f"no such line in {illness.file}"
        path.write_text(text.replace(illness.old, illness.new))
    train(copy, illness.stage, workdir, directory / "none_stage_1", illness.flags)
    done = run(copy, "scripts/doctor.py", f"--run={workdir}")
    if illness.file:
        path.write_text(text)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or not lines:
        sys.exit(f"the doctor failed:\n{done.stderr[-2000:]}")
    for line in lines:
        print("   ", line)
    failed = [line for line in lines if line.startswith("FAIL")]
    return any(illness.check in line for line in failed) if illness.check else not failed


def main(words: list[str]) -> int:
    """Prints what the doctor says of every run; 1 if it missed an illness or made one up."""
    answers = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        copy = directory / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        used = run(copy, "-c", "import phenaki; print(phenaki.__file__)").stdout
        assert used.startswith(str(copy)), f"not the copy is run, but {used}"
        for illness in ILLNESSES:
            # Stage 2 is trained on the codes of the first run.
            if illness is ILLNESSES[0] or not words or any(w in illness.what for w in words):
                print(f"illness: {illness.what}", flush=True)
                answers.append(answer(copy, illness, directory))
                print(f"  {'named' if illness.check else 'well'}: {answers[-1]}", flush=True)
    print(f"{sum(answers)} of {len(answers)} runs judged rightly")
    return int(not all(answers))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
