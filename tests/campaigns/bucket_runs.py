"""All stages with everything in a bucket: prepare, encode, train both stages, resume, sample.

python tests/campaigns/bucket_runs.py

Training is by two processes, which are killed (kill -9) once in each stage and start again; the
bucket also refuses every fifth writing of TensorFlow once. Every logged step must be there and
equal that of an undisturbed run on a disk. Prints a line per command and what lies in the bucket.
"""

import collections
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import ROOT

sys.path.insert(0, str(ROOT / "tests"))

import bucket as loopback
import test_processes
from numbered_clips import regular, write_video

from phenaki.io import checkpoint_steps, paths
from phenaki.train import logs

ADDRESS = f"gs://{loopback.NAME}"
STEPS = 8
BEGAN = time.monotonic()


def say(line: str) -> None:
    print(f"{time.monotonic() - BEGAN:6.1f} s  {line}", flush=True)


def script(name: str, *arguments: object) -> None:
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=environment, cwd=ROOT, text=True, capture_output=True)
    last = (run.stdout.strip() or run.stderr.strip()).splitlines()[-1:]
    say(f"{name} {' '.join(map(str, arguments))}: {run.returncode}, {' '.join(last)}")
    assert run.returncode == 0, run.stderr


def train(kind: str, workdir: str, killed: bool, **fields) -> list[dict]:
    """Trains in two processes, killed after the first checkpoint if so told; the logged steps."""
    job = dict(train=dict(steps=STEPS, save_every=2, log_every=1), **fields.pop("config"))
    if killed:
        first = test_processes.Job(kind, workdir, 2, **fields, **job)
        while not checkpoint_steps.complete_steps(f"{workdir}/checkpoints"):
            codes = [process.poll() for process in first.processes]
            assert codes == [None, None], first.wait()
            time.sleep(0.5)
        first.kill()
        done = checkpoint_steps.complete_steps(f"{workdir}/checkpoints")
        say(f"{kind}: both processes killed, checkpoints {done}")
    test_processes.Job(kind, workdir, 2, **fields, **job).wait(timeout=1200)
    say(f"{kind}: done, checkpoints {checkpoint_steps.complete_steps(f'{workdir}/checkpoints')}")
    return [{k: v for k, v in line.items() if "second" not in k} for line in logs.read(workdir)]


def all_stages(root: str, raw: str, killed: bool) -> dict[str, list[dict]]:
    """All commands with outputs below `root`; the logged steps of both stages."""
    script("prepare_data.py", f"--input={raw}", f"--output={root}/set", "--size=16",
           "--validation=0", "--encoding=png")  # fmt: skip
    clips = dict(data=dict(source="tfds", sources=f"{root}/set"))
    lines = {"cvivit": train("cvivit", f"{root}/cvivit", killed, config=clips)}
    encode = dict(tokenizer=f"{root}/cvivit", source=f"{root}/set")
    test_processes.Job("encode", f"{root}/codes", 2, **encode).wait(timeout=1200)
    say(f"encode: {len(paths.names(f'{root}/codes'))} files")
    codes = dict(data=dict(source="codes", sources=f"{root}/codes"))
    stage = dict(tokenizer=f"{root}/cvivit", config=codes)
    lines["maskgit"] = train("maskgit", f"{root}/maskgit", killed, **stage)
    script("sample.py", f"--model={root}/maskgit", f"--output={root}/out", "--prompt=run")
    return lines


def main() -> None:
    tried: collections.Counter = collections.Counter()

    def busy(method: str, path: str) -> int:
        tried[method, path] += 1
        first = method == "POST" and "uploadType=resumable" in path and tried[method, path] == 1
        return 503 if first and len(tried) % 5 == 0 else 0

    with tempfile.TemporaryDirectory() as folder, loopback.Bucket() as served:
        os.environ |= served.environment
        for number in range(16):
            clip = Path(folder, "raw", ("run", "jump")[number % 2], f"{number}.mp4")
            clip.parent.mkdir(parents=True, exist_ok=True)
            write_video(clip, regular(24, 8))
            paths.upload(clip, paths.path(f"{ADDRESS}/raw/{clip.parent.name}/{clip.name}"))
        with served.failing(busy):
            found = all_stages(ADDRESS, f"{ADDRESS}/raw", killed=True)
        say(f"{len(served.requests)} requests; the same on a disk:")
        expected = all_stages(f"{folder}/disk", f"{folder}/raw", killed=False)
        for stage, lines in expected.items():
            assert [line["step"] for line in found[stage]] == list(range(1, STEPS + 1))
            same = found[stage] == lines
            say(f"{stage}: {len(lines)} logged steps, {'equal' if same else 'DIFFERENT'}")
        for name in sorted(paths.names(ADDRESS)):
            say(f"{ADDRESS}/{name}: {', '.join(paths.names(f'{ADDRESS}/{name}'))}")


if __name__ == "__main__":
    main()
