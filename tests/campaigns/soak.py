"""A training run of two processes with a fault every 20 to 60 seconds, for half an hour.

python tests/campaigns/soak.py [MINUTES]

Both processes are killed, or one of them, or one is preempted (SIGTERM); then the same command runs
again. Before every second fault another run starts in the same --workdir, and must be refused;
after every other one a bit of the newest checkpoint flips. Every run that completes is compared
with an undisturbed one: each step's logged line, and every bit of the parameters.
"""

import collections
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kill_runs

from phenaki.io import checkpoint_steps, owner

STEPS = 600
FAULTS = ("both killed", "one killed", "preempted")
# Seconds in which the other process must end by itself; while it starts, JAX waits 300 for a peer.
GRACE = 400


def command(work: Path, output: Path) -> list[str]:
    """The flags of a run that ends in `output`."""
    return [
        "--config=configs/maskgit.py:small", *kill_runs.TINY,
        f"--config.data.sources={work / 'set'}", f"--config.train.steps={STEPS}",
        "--config.train.log_every=1", "--config.train.save_every=20",
        "--config.train.sample_every=100000", f"--tokenizer={work / 'tokenizer'}",
        f"--workdir={output}",
    ]  # fmt: skip


def start(work: Path, output: Path) -> list[subprocess.Popen]:
    """The two processes of a run that ends in `output`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [*command(work, output), f"--coordinator=localhost:{port}", "--processes=2"]
    return [kill_runs.start("train_maskgit.py", *flags, f"--process={index}") for index in range(2)]


def rival(work: Path, output: Path, processes: list[subprocess.Popen]) -> str:
    """What became of a run that starts in the place of another, that of `processes`."""
    other = kill_runs.start("train_maskgit.py", *command(work, output))
    if not ended([other], GRACE):
        other.kill()
        other.wait()
    if other.returncode == 0 and ended(processes, 60) and not any(p.poll() for p in processes):
        return "rival found it complete"  # it was, while the rival loaded its libraries
    return "rival refused" if other.returncode == 2 else f"rival ended with {other.returncode}"


def flip(output: Path, chance: random.Random) -> str:
    """Flips a bit of one file of the newest checkpoint where there is an earlier one."""
    steps = checkpoint_steps.complete_steps(output / "checkpoints")
    if len(steps) < 2:
        return ""
    files = sorted((output / "checkpoints" / str(steps[-1])).rglob("*"))
    file = chance.choice([path for path in files if path.is_file() and path.stat().st_size])
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return "bit flipped"


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
    fault, victim = chance.choice(FAULTS), chance.choice((0, 1))
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


def _holds(output: Path, process: subprocess.Popen) -> bool:
    """Whether `process` has the place already; while it loads libraries it has not."""
    try:
        return json.loads((output / owner.OWNER).read_text())["pid"] == process.pid
    except (OSError, ValueError):
        return False


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
            turn = sum(count for name, count in done.items() if name in FAULTS) % 2
            waits = turn and _holds(output, processes[0])
            faults = [rival(work, output, processes)] if waits else []
            faults.append(strike(processes, chance))
            faults += [] if turn else filter(None, [flip(output, chance)])
            done.update(faults)
            print(f"{', '.join(faults)} ({sum(done.values())})", flush=True)
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
    never = [fault for fault in done if "never" in fault or "rival ended" in fault]
    counts = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
    print("\n".join([*wrong, f"soak: {minutes} min: {counts}; {len(wrong)} differences"]))
    return int(bool(wrong or never))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
