"""Memory of a studio over many films, and ten clients at a time: nobody gets another's film.

    python tests/campaigns/studio_clients.py --output=clients

Prints the memory of the studio's process after every tenth of its films and stories, its slope
after a warm-up of three tenths with a 95 % interval, and what ten clients were answered in five
minutes. Exits 1 where all films or stories after the warm-up may have added more than a fiftieth
to the memory, or a film is not that of its client's prompt and seed.
"""

import collections
import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from environment import ROOT

# isort: split
from studio import Client

FILMS = flags.DEFINE_integer("films", 200, "films one after another", lower_bound=10)
STORIES = flags.DEFINE_integer("stories", 60, "stories of two scenes", lower_bound=10)
CLIENTS = flags.DEFINE_integer("clients", 10, "clients at a time")
SECONDS = flags.DEFINE_integer("seconds", 300, "of clients")
OUTPUT = flags.DEFINE_string("output", None, "folder of the studio", required=True)
MODEL = flags.DEFINE_string("model", "laptop", "as of phenaki studio")
COLOURS = ("red", "green", "blue", "yellow", "white")
SHAPES = ("circle", "square")


def prompt_of(number: int) -> str:
    """A prompt of its own for each of ten clients."""
    return f"a {COLOURS[number % 5]} {SHAPES[number // 5 % 2]} moves left"


def memory_of(process: subprocess.Popen) -> float:
    """MB that a process holds once it holds the same for a second.

    After a job's end its memory goes back to the system, on a busy machine not at once.
    """
    held = None
    for _ in range(20):
        status = Path(f"/proc/{process.pid}/status").read_text()
        before, held = held, int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
        if held == before:
            break
        time.sleep(1)
    return held


def film(client: Client, text: str, seed: int) -> str | None:
    """The digest of a film's bytes, which hold prompt and seed; None where the queue is full."""
    status, _, content = client.ask(
        "POST", "/api/prompt", json.dumps({"prompt": text, "seed": str(seed)})
    )
    if status == 429:
        return None
    assert status == 200, content
    last = client.done(json.loads(content))
    assert last["state"] == "done", last
    (take,) = last["takes"]
    assert (take["facts"]["prompt"], take["facts"]["seed"]) == (text, seed), take
    status, _, content = client.ask("GET", f"/takes/{take['id']}/film.mp4")
    assert status == 200
    return hashlib.sha256(content).hexdigest()


def story(client: Client, number: int) -> None:
    """A story of two scenes, removed again."""
    scenes = [{"prompt": prompt_of(number + k), "seconds": 1.4} for k in range(2)]
    form = {"seed": str(number), "scenes": scenes}
    made = client.post("/api/stories", form)
    last = client.done(client.post(f"/api/stories/{made['id']}/render", {"form": form}))
    assert last["state"] == "done", last
    assert client.ask("DELETE", f"/api/stories/{made['id']}")[0] == 200


def flat(process: subprocess.Popen, port: int) -> bool:
    """Whether the memory of films and stories, one after another, stays."""
    client = Client(port)
    client.ask("GET", "/")
    found = True
    for what, count, one in (
        ("films", FILMS.value, lambda n: film(client, prompt_of(n), n)),
        ("stories", STORIES.value, lambda n: story(client, n)),
    ):
        held = []
        for number in range(count):
            one(number)
            held.append(memory_of(process))
        warm = np.array(held[-(-3 * count // 10) :])
        slope, error = slope_of(warm)
        tenths = " ".join(f"{x:.0f}" for x in held[count // 10 - 1 :: count // 10])
        print(
            f"{count} {what}: MB {tenths}; after a warm-up {1024 * slope:.1f} +- "
            f"{1024 * error:.1f} kB each",
            flush=True,
        )
        found &= (slope + error) * len(warm) < warm[0] / 50
    return found


def slope_of(values: np.ndarray) -> tuple[float, float]:
    """The slope of a line through `values`, and half of its 95 % interval.

    A process keeps its memory from one film to the next: errors of neighbours are alike, so that
    the interval is of the means of ten blocks.
    """
    blocks = np.array([block.mean() for block in np.array_split(values, min(10, len(values)))])
    x = np.arange(len(blocks)) - (len(blocks) - 1) / 2
    slope = (x * blocks).sum() / (x**2).sum()
    rest = blocks - blocks.mean() - slope * x
    error = 2.3 * np.sqrt((rest**2).sum() / (len(blocks) - 2) / (x**2).sum())
    each = len(values) / len(blocks)
    return float(slope / each), float(error / each)


def together(process: subprocess.Popen, port: int) -> bool:
    """Whether clients at a time get their own films."""
    alone = Client(port)
    alone.ask("GET", "/")
    right = {(n, s): film(alone, prompt_of(n), s) for n in range(CLIENTS.value) for s in range(2)}
    assert len(set(right.values())) == len(right)
    counts: collections.Counter = collections.Counter()
    end = time.monotonic() + SECONDS.value

    def work(number: int) -> None:
        client = Client(port)
        client.ask("GET", "/")
        turn = 0
        while time.monotonic() < end:
            try:
                found = film(client, prompt_of(number), turn % 2)
            except Exception as error:
                counts[f"error {type(error).__name__}: {str(error)[:80]}"] += 1
            else:
                kind = "right" if found == right[number, turn % 2] else "wrong"
                counts["queue full" if found is None else kind] += 1
            turn += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(CLIENTS.value)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    memory = memory_of(process)
    print(f"{CLIENTS.value} clients, {SECONDS.value} s: {told}; {memory:.0f} MB", flush=True)
    return set(counts) <= {"right", "queue full"} and counts["right"] > 0


def main(argv):
    """Runs both."""
    del argv
    command = [sys.executable, "-m", "phenaki.commands.main", "studio", f"--model={MODEL.value}"]
    command += [f"--output={OUTPUT.value}", "--port=0", "--disk_mb=100"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            good = flat(process, port) & together(process, port)
        finally:
            process.terminate()
    print("passed" if good else "failed")
    sys.exit(not good)


if __name__ == "__main__":
    app.run(main)
