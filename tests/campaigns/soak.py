"""A training of two processes that something befalls every 20 to 60 seconds, for half an hour.

python tests/campaigns/soak.py [MINUTES]

Both processes are killed, or one of them, or one is told to stop; then the same command is given
again. Every run that gets to its end is compared with a calm one: each step's line, and every bit
of the parameters.
"""

import collections
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kill_runs

STEPS = 600
GRACE = 120  # seconds until the process that is left must have ended by itself


def start(work: Path, output: Path) -> list[subprocess.Popen]:
    """The two processes of a run that ends in `output`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [
        "--config=configs/maskgit.py:small", *kill_runs.SMALL,
        f"--config.data.sources={work / 'set'}", f"--config.train.steps={STEPS}",
        "--config.train.log_every=1", "--config.train.save_every=20",
        "--config.train.sample_every=100000", f"--tokenizer={work / 'tokenizer'}",
        f"--workdir={output}", f"--coordinator=localhost:{port}", "--processes=2",
    ]  # fmt: skip
    return [kill_runs.start("train_maskgit.py", *flags, f"--process={index}") for index in range(2)]


def ended(processes: list[subprocess.Popen], seconds: float) -> bool:
    """Whether all end within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(process.poll() is not None for process in processes):
            return True
        time.sleep(0.2)
    return False


def strike(processes: list[subprocess.Popen], chance: random.Random) -> str:
    """Does the run some harm, and says which; a process that goes on alone is an error."""
    harm, victim = (
        chance.choice(("both killed", "one killed", "told to stop")),
        chance.choice((0, 1)),
    )
    if harm == "told to stop":
        processes[victim].send_signal(signal.SIGTERM)
    else:
        for process in processes if harm == "both killed" else processes[victim : victim + 1]:
            process.kill()
    alone = not ended(processes, GRACE)
    for process in processes:
        process.kill()
        process.wait()
    return f"{harm}, and the other never ended" if alone else harm


def soak(work: Path, minutes: float, seed: int = 0) -> tuple[collections.Counter, list[str]]:
    """(how often which harm was done and how many runs came to an end, what was wrong)."""
    chance, done, wrong = random.Random(seed), collections.Counter(), []
    kill_runs.data_set(work / "set")
    kill_runs.tokenizer(work / "tokenizer")
    assert ended(start(work, work / "calm"), 3600)
    calm = kill_runs.trained(work / "calm", STEPS)
    finish, number = time.monotonic() + 60 * minutes, 0
    while True:
        output = work / str(number)
        processes = start(work, output)
        last = time.monotonic() > finish
        if not ended(processes, 3600 if last else chance.uniform(20, 60)):
            harm = strike(processes, chance)
            done[harm] += 1
            print(f"{harm} ({sum(done.values())})", flush=True)
            continue
        tokens = [process.returncode for process in processes]
        if tokens != [0, 0]:
            wrong.append(f"run {number}: ended by itself with {tokens}")
            return done, wrong
        if kill_runs.trained(output, STEPS) != calm:
            wrong.append(f"run {number}: differs from the calm one")
        done["runs that came to their end"] += 1
        print(f"run {number} has come to its end", flush=True)
        number += 1
        if last:
            return done, wrong


def main(minutes: float = 30) -> int:
    """Prints what happened; 1 if something was lost."""
    with tempfile.TemporaryDirectory() as directory:
        done, wrong = soak(Path(directory), float(minutes))
    never = [harm for harm in done if "never" in harm]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    print("\n".join([*wrong, f"soak: {minutes} min: {counts}; {len(wrong)} differences"]))
    return int(bool(wrong or never))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
