"""Kills encoding or training at random moments; compares the result with an undisturbed run.

python tests/campaigns/kill_runs.py encode [ROUNDS]  20 by default; each is a kill -9 of the command
python tests/campaigns/kill_runs.py train [ROUNDS]
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from environment import ROOT

# isort: split
import clip_sets
import numpy as np
import tiny

from phenaki.data import format
from phenaki.io import checkpoint, stored_params
from phenaki.models import factory

TINY = (
    "--config.model.codebook=32", "--config.model.depth=1", "--config.model.width=16",
    "--config.model.mlp_dim=32", "--config.model.heads=2", "--config.text.cached=False",
    "--config.unroll=1",
)  # fmt: skip
STEPS = 40


def start(script: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, ROOT / "scripts" / script, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=ROOT, env=environment)


def data_set(directory: Path) -> Path:
    """Clips and images of noise at the tiny tokenizer's size, in many shards."""
    frames = np.random.default_rng(0).integers(0, 256, (240, 11, 16, 16, 3), np.uint8)
    records: dict[str, list] = {"image_train": [], "video_train": []}
    for number, video in enumerate(frames):
        kind = "image" if number % 4 == 0 else "video"
        encoded = format.encode(video[:1] if kind == "image" else video, "png")
        caption = f"number {number}"
        record = format.ClipRecord(f"{number}", encoded, caption, "", "", (16, 16), 0.0, 8.0)
        records[f"{kind}_train"].append(record)
    form = format.ClipFormat(11, 8.0, 16, 16, "png")
    return clip_sets.write(directory, form, records, per_shard=12)


def tokenizer(directory: Path) -> Path:
    """The tiny tokenizer with random weights."""
    config = tiny.tokenizer_config()
    params = tiny.random_params(factory.tokenizer(config), np.zeros((1, 11, 16, 16, 3), np.float32))
    checkpoint.save_bundle(directory, {"tokenizer": params}, config.to_dict())
    return directory


def encoder(work: Path) -> Callable[[Path], subprocess.Popen]:
    """output -> the running command."""
    source, stage1 = data_set(work / "set"), tokenizer(work / "tokenizer")

    def run(output: Path) -> subprocess.Popen:
        return start(
            "encode_dataset.py", "--config=configs/maskgit.py:small", *TINY, "--batch=4",
            f"--tokenizer={stage1}", f"--input={source}", f"--output={output}",
        )  # fmt: skip

    return run


def trainer(work: Path) -> Callable[[Path], subprocess.Popen]:
    """output -> the running command."""
    source, stage1 = data_set(work / "set"), tokenizer(work / "tokenizer")

    def run(output: Path) -> subprocess.Popen:
        return start(
            "train_maskgit.py", "--config=configs/maskgit.py:small", *TINY,
            f"--config.data.sources={source}", f"--config.train.steps={STEPS}",
            "--config.optim.warmup=5",
            "--config.train.log_every=1", "--config.train.save_every=3",
            "--config.train.sample_every=1000", f"--tokenizer={stage1}", f"--workdir={output}",
        )  # fmt: skip

    return run


def encoded(output: Path) -> dict:
    """Every file."""
    return {path.name: path.read_bytes() for path in output.iterdir()}


def trained(output: Path, steps: int = STEPS) -> dict:
    """The parameters after `steps`, and each step's line as it was last written."""
    lines = {}
    for text in (output / "metrics.jsonl").read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # a kill cut it
        lines[line["step"]] = {k: v for k, v in line.items() if "second" not in k}
    state = stored_params._restore(output.resolve() / "checkpoints" / str(steps) / "state")
    return {"lines": lines, "params": [leaf.tobytes() for leaf in _leaves(state)]}


def _leaves(state):
    import jax

    return jax.tree.leaves(state)


JOBS = {"encode": (encoder, encoded), "train": (trainer, trained)}


def kill_rounds(job: str, work: Path, rounds: int, seed: int = 0) -> list[str]:
    """Runs once undisturbed; then kills `rounds` times; returns the differences at the end.

    The same output is continued after each kill until it is complete, then the next one starts.
    """
    make, contents = JOBS[job]
    chance, run = random.Random(seed), make(work)
    began = time.monotonic()
    assert run(work / "undisturbed").wait() == 0
    seconds, undisturbed = time.monotonic() - began, contents(work / "undisturbed")
    differences, killed, output = [], 0, work / "0"
    while True:
        running = run(output)
        if killed < rounds:
            try:
                running.wait(chance.uniform(0.2 * seconds, 1.1 * seconds))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                killed += 1
                continue
        if running.wait() != 0:
            return [*differences, f"{output.name}: failed without a kill"]
        if contents(output) != undisturbed:
            differences.append(f"{output.name}: differs after {killed} kills")
        if killed >= rounds:
            return differences
        output = work / str(killed)


def main(job: str, rounds: int = 20) -> int:
    """Prints a line; 1 if an output differs."""
    with tempfile.TemporaryDirectory() as directory:
        differences = kill_rounds(job, Path(directory), int(rounds))
    print("\n".join([*differences, f"{job}: {rounds} kills, {len(differences)} differences"]))
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
