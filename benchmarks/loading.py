"""Seconds to load a model in this checkout and in an earlier one, whose loads check less.

    git worktree add ../before REVISION
    python benchmarks/loading.py --before=../before

Loads the released bundle, and one of about 500 MB that each checkout writes for itself. Every load
is a process of its own, in turn; its libraries are loaded before. Prints the medians of seconds and
of the processor's seconds, and their ratio, and writes benchmarks/results/loading.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import record
from absl import flags

from phenaki import cli
from phenaki.progress import Progress

BEFORE = flags.DEFINE_string("before", None, "another checkout", required=True)
REPEATS = flags.DEFINE_integer("repeats", 20, "loads of each", lower_bound=2)
OUTPUT = flags.DEFINE_string("output", "benchmarks/results/loading.json", "path of the results")

HERE = Path(__file__).resolve().parents[1]
# Both checkouts know these; the program runs in either.
WRITE = """
import sys
import numpy as np
from phenaki.pipeline import Phenaki
model = Phenaki.load("checkpoints/laptop")
random = np.random.default_rng(0)
large = {f"layer_{i}": random.standard_normal((1024, 1024), np.float32) for i in range(120)}
Phenaki(model.config, dict(model.params) | {"more": large}).save(sys.argv[1])
"""
LOAD = """
import json, sys, time
import jax, numpy, orbax.checkpoint
from phenaki.pipeline import Phenaki
jax.block_until_ready(jax.numpy.zeros(1) + 1)
wall, processor = time.perf_counter(), time.process_time()
jax.block_until_ready(Phenaki.load(sys.argv[1]).params)
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]))
"""


def main(argv):
    """Writes the large bundles, then loads in turn."""
    del argv
    record.admit(OUTPUT.value)
    checkouts = {"before": Path(BEFORE.value).resolve(), "now": HERE}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        large = {name: Path(folder) / name for name in checkouts}
        for name, checkout in checkouts.items():
            _run(checkout, WRITE, large[name])
        megabytes = _megabytes(large["now"])
        released = dict.fromkeys(checkouts, Path("checkpoints/laptop"))
        for bundle, places in (("released", released), (f"{megabytes:.0f} MB", large)):
            rows.append(_compared(bundle, checkouts, places))
    record.write(OUTPUT.value, ("jax", "orbax-checkpoint"), repeats=REPEATS.value, rows=rows)


def _compared(bundle, checkouts, places):
    """Prints and returns how long a bundle takes to load in both checkouts."""
    found: dict[str, list] = {name: [] for name in checkouts}
    with Progress(REPEATS.value, f"loading {bundle}") as progress:
        for number in range(REPEATS.value):
            names = list(checkouts)
            for name in names if number % 2 else names[::-1]:
                found[name].append(json.loads(_run(checkouts[name], LOAD, places[name])))
            progress.update()
    row = {"bundle": bundle}
    for place, what in enumerate(("seconds", "processor_seconds")):
        times = {name: [run[place] for run in runs] for name, runs in found.items()}
        median = {name: statistics.median(values) for name, values in times.items()}
        spread = {name: statistics.quantiles(values, n=4)[::2] for name, values in times.items()}
        low, high = _interval(times["before"], times["now"])
        ratio = median["now"] / median["before"]
        row[what] = dict(median=median, quartiles=spread, ratio=ratio, interval=[low, high])
        print(
            f"{bundle}: {what.replace('_', ' ')} {median['before']:.3f} before, "
            f"{median['now']:.3f} now: {ratio:.3f} ({low:.3f} to {high:.3f})"
        )
    return row


def _interval(before, now):
    """95 % of the ratios of medians of samples drawn from the loads with replacement."""
    random = np.random.default_rng(0)
    draws = [np.median(random.choice(x, (2000, len(x))), axis=1) for x in (before, now)]
    return [float(x) for x in np.quantile(draws[1] / draws[0], (0.025, 0.975))]


def _run(checkout, program, *arguments):
    environment = os.environ | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout


def _megabytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    cli.run(main)
