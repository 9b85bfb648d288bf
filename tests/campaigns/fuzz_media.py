"""Feeds scripts/prepare_data.py hundreds of hostile inputs and checks the result of each.

python tests/campaigns/fuzz_media.py [SEED]

No crash, no hang, bounded memory, everything skipped is counted with its reason, nothing is read or
written outside. Prints a line per group; exits with 1 if a check fails.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from environment import ROOT

# isort: split
import hostile_media
import layouts

SECONDS = 600  # of a group
MEGABYTES = 2500  # of one process; TensorFlow takes 600, an image of MAX_PIXELS 200


def write(root: Path, named: Iterable[hostile_media.Named]) -> int:
    """Writes files into a folder; returns how many."""
    root.mkdir(parents=True)
    count = 0
    for name, content in named:
        (root / name).write_bytes(content)
        count += 1
    return count


def tree(work: Path) -> dict[str, bytes]:
    """All files except outputs."""
    paths = (path for path in work.rglob("*") if path.is_file() and "out" not in path.parts)
    return {path.relative_to(work).as_posix(): path.read_bytes() for path in paths}


def prepare(source: Path, output: Path, *flags: str) -> tuple[int, str, int]:
    """(exit code, stderr, peak megabytes of the largest process)."""
    command = [sys.executable, ROOT / "scripts" / "prepare_data.py", f"--input={source}"]
    command += [f"--output={output}", "--size=48x64", "--frames=3", "--limit=2", *flags]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak, end = 0, time.monotonic() + SECONDS
    while running.poll() is None and time.monotonic() < end:
        peak = max([peak, *map(_megabytes, _family(running.pid))])
        time.sleep(0.1)
    if running.poll() is None:
        running.kill()
        return 124, f"hangs after {SECONDS} s", peak
    return running.returncode, running.communicate()[1], peak


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _family(int(child)))]


def _megabytes(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0


def judge(work: Path, name: str, source: Path, must: int, refusable: bool = False) -> list[str]:
    """Failed checks after preparing `source`, of which at least `must` items are counted."""
    before = tree(work)
    code, stderr, peak = prepare(source, work / "out" / name, "--workers=2")
    wrong = []
    if code not in ((0, 2) if refusable else (0,)) or "Traceback" in stderr:
        wrong.append(f"exit {code}: {stderr[-300:]}")
    if peak > MEGABYTES:
        wrong.append(f"{peak} MB in one process")
    if tree(work) != before:
        wrong.append("something outside the output changed")
    if code == 0:
        report = json.loads((work / "out" / name / "report.json").read_text())
        files = report["files"]
        if files["found"] != files["read"] + files["skipped"] or files["found"] < must:
            wrong.append(f"{must} items given, {files} counted")
        if not all(entry["reason"] for entry in report["skipped"] + report["problems"]):
            wrong.append("skipped without a reason")
        if any(hostile_media.SECRET in p.read_bytes() for p in (work / "out" / name).iterdir()):
            wrong.append("it holds content from outside the input")
    return [f"{name}: {one}" for one in wrong]


def outside(work: Path) -> None:
    """Writes the files that hostile inputs point to."""
    layouts.video(work / "outside.mkv", 40)
    (work / "outside.png").write_bytes(layouts.image(200) + hostile_media.SECRET)


def fuzz(work: Path, seed: int, fraction: float = 1.0) -> tuple[int, list[str]]:
    """(number of inputs, failed checks), for a fraction of each group."""
    outside(work)

    def some(named):
        every = list(named)
        step = max(1, round(1 / fraction))
        return every[seed % step :: step]

    (work / "scratch").mkdir()
    media = some(hostile_media.media(work / "scratch", seed))
    groups = [("media", media, len(media))]
    tars = some(hostile_media.tars(seed))
    groups.append(("tars", tars, 1))
    tables = some(hostile_media.tables())
    for name, content in tables:
        groups.append((name, [("a.mp4", None), ("captions.csv", content)], 1))
    wrong, count = [], len(media) + len(tars) + len(tables)
    clip = layouts.video(work / "scratch" / "a.mp4").read_bytes()
    for name, named, must in groups:
        write(work / "in" / name, [(n, clip if c is None else c) for n, c in named])
        began = time.monotonic()
        failed = judge(
            work, name, work / "in" / name, must, refusable=name not in ("media", "tars")
        )
        print(f"{name}: {len(named)} inputs, {time.monotonic() - began:.0f} s", *failed, flush=True)
        wrong += failed
    return count, wrong


def main(seed: int = 0) -> int:
    """Returns 1 if a check fails."""
    with tempfile.TemporaryDirectory() as directory:
        count, wrong = fuzz(Path(os.path.realpath(directory)), seed)
    print(f"{count} inputs, {len(wrong)} wrong")
    return int(bool(wrong) or count < 200)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
