"""Kills scripts/prepare_data.py at random moments and compares its output with an undisturbed run.

python tests/campaigns/kill_prepare.py [ROUNDS]  20 by default, each a kill -9
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import ROOT

# isort: split
import layouts

EXCLUDED = ("report.json", "report.txt")  # they hold the duration


def start(source: Path, output: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, ROOT / "scripts" / "prepare_data.py", f"--input={source}"]
    command += [f"--output={output}", "--size=48x64", "--encoding=png", f"--workers={workers}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name not in EXCLUDED}


def reasons(directory: Path) -> list:
    return json.loads((directory / "report.json").read_text())["skipped"]


def kill_rounds(work: Path, rounds: int, seed: int = 0) -> list[str]:
    """Prepares once undisturbed; then kills `rounds` times. Returns what differs.

    One output is killed until it is complete, then the next.
    """
    chance = random.Random(seed)
    source = work / "in"
    for index in range(24):
        layouts.video(source / f"{index:02d}.mp4", frames=11 + index % 5, first=index)
    (source / "broken.mp4").write_bytes(b"no video")
    began = time.monotonic()
    assert start(source, work / "undisturbed", 2).wait() == 0
    duration = time.monotonic() - began
    differences, killed, output = [], 0, work / "0"
    while True:
        running = start(source, output, chance.choice((2, 3)))
        if killed < rounds:
            try:
                running.wait(chance.uniform(0, 1.1 * duration))
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                killed += 1
                if not output.exists():
                    continue
        elif running.wait() != 0:
            return [*differences, f"{output.name}: a run that was not killed failed"]
        same = contents(output) == contents(work / "undisturbed")
        if not same or reasons(output) != reasons(work / "undisturbed"):
            differences.append(f"{output.name}: differs after {killed} kills")
        if killed >= rounds:
            return differences
        output = work / str(killed)


def main(rounds: int = 20) -> int:
    """Prints a line; 1 if an output differs."""
    with tempfile.TemporaryDirectory() as directory:
        differences = kill_rounds(Path(directory), rounds)
    print("\n".join([*differences, f"{rounds} kills, {len(differences)} differences"]))
    return int(bool(differences))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
