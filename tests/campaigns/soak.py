"""A training run of two processes with a fault every 20 to 60 seconds, for half an hour.

python tests/campaigns/soak.py [MINUTES]

Both processes are killed, or one of them, or one is preempted (SIGTERM); then the same command runs
again. Every run that completes is compared with an undisturbed one: each step's logged line, and
every bit of the parameters.
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
GRACE = 120  # seconds in which the other process must end by itself


def start(work: Path, output: Path) -> list[subprocess.Popen]:
    """The two processes of a run that ends in `output`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [
        "--config=configs/maskgit.py:small", *kill_runs.TINY,
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
    """Injects a fault and returns its name; a process that continues alone is an error."""
    fault, victim = (
        chance.choice(("both killed", "one killed", "preempted")),
        chance.choice((0, 1)),
    )
    if fault == "preempted":
        processes[victim].send_signal(signal.SIGTERM)
    else:
        for process in processes if fault == "both killed" else processes[victim : victim + 1]:
            process.kill()
    alone = not ended(processes, GRACE)
    for process in processes:
        process.kill()
        process.wait()
    return f"{fault}, and the other never ended" if alone else fault


def soak(work: Path, minutes: float, seed: int = 0) -> tuple[collections.Counter, list[str]]:
    """(counts of each fault and of completed runs, differences)."""
    chance, done, wrong = random.Random(seed), collections.Counter(), []
    kill_runs.data_set(work / "set")
    kill_runs.tokenizer(work / "tokenizer")
    assert ended(start(work, work / "undisturbed"), 3600)
    undisturbed = kill_runs.trained(work / "undisturbed", STEPS)
    finish, number = time.monotonic() + 60 * minutes, 0
    while True:
        output = work / str(number)
        processes = start(work, output)
        last = time.monotonic() > finish
        if not ended(processes, 3600 if last else chance.uniform(20, 60)):
            fault = strike(processes, chance)
            done[fault] += 1
            print(f"{fault} ({sum(done.values())})", flush=True)
            continue
        codes = [process.returncode for process in processes]
        if codes != [0, 0]:
            wrong.append(f"run {number}: ended by itself with {codes}")
            return done, wrong
        if kill_runs.trained(output, STEPS) != undisturbed:
            wrong.append(f"run {number}: differs from the undisturbed one")
        done["completed runs"] += 1
        print(f"run {number} is complete", flush=True)
        number += 1
        if last:
            return done, wrong


def main(minutes: float = 30) -> int:
    """Prints the counts; returns 1 if something was lost."""
    with tempfile.TemporaryDirectory() as directory:
        done, wrong = soak(Path(directory), float(minutes))
    never = [fault for fault in done if "never" in fault]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    print("\n".join([*wrong, f"soak: {minutes} min: {counts}; {len(wrong)} differences"]))
    return int(bool(wrong or never))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
