"""Seconds of the cases of a checkout's speed.py, alone in a process; `peers.py` runs it.

    PYTHONPATH=CHECKOUT python benchmarks/peers_ours.py OPTIONS OUTPUT

OPTIONS is JSON: "repeats", and "cases", the titles to time. OUTPUT gets the seconds of every call
by title, the machine's matmul rate between them, and versions.
"""

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path


def main(options, output: Path):
    """Times the cases one after the other."""
    sys.path[0] = str(Path(os.environ["PYTHONPATH"], "benchmarks"))  # of that checkout
    import jax
    import speed
    from absl import flags

    flags.FLAGS(["speed", f"--repeats={options['repeats']}"])
    seconds: dict[str, list[float]] = {}
    rates = [speed.matmul_rate()]
    for title, function, arguments, _ in speed.cases():
        if title not in options["cases"]:
            continue
        jax.block_until_ready(function(*arguments))  # compiles
        seconds[title] = []
        for _ in range(options["repeats"]):
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            seconds[title].append(time.perf_counter() - start)
        rates.append(speed.matmul_rate())
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    output.write_text(json.dumps(dict(seconds=seconds, matmul=rates, versions=versions)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
