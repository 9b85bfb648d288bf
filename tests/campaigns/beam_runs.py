"""Prepares one folder without Beam and with three of its runners, and compares every byte.

python tests/campaigns/beam_runs.py    needs the extra beam, and dask and distributed; a minute
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import ROOT

# isort: split
import kill_prepare
import layouts

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PORT = 8099
RUNNERS = {
    "direct": ["--runner=DirectRunner"],
    "dask": ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"],
    "portable": [
        "--runner=PortableRunner",
        f"--beam=job_endpoint=localhost:{PORT},environment_type=LOOPBACK",
    ],
}
SERVICE = "apache_beam.runners.portability.local_job_service_main"


def prepare(work: Path, name: str, flags: list[str]) -> dict[str, bytes]:
    """The files that scripts/prepare_data.py writes, except the report."""
    command = [sys.executable, ROOT / "scripts" / "prepare_data.py", f"--input={work / 'in'}"]
    command += [f"--output={work / name}", "--size=48x64", "--encoding=png", "--workers=2"]
    subprocess.run([*command, *flags], check=True, capture_output=True, env=ENVIRONMENT)
    return kill_prepare.contents(work / name)


def main() -> None:
    """Prints a line per runner; exits with 1 if one differs."""
    differ = 0
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        for index in range(24):
            layouts.video(work / "in" / f"{index:02d}.mp4", frames=11 + index % 5, first=index)
        (work / "in" / "broken.mp4").write_bytes(b"no video")
        service = subprocess.Popen(
            [sys.executable, "-m", SERVICE, f"--port={PORT}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        try:
            plain = prepare(work, "plain", [])
            for name, flags in RUNNERS.items():
                start = time.monotonic()
                equal = prepare(work, name, flags) == plain
                differ += not equal
                result = "equal" if equal else "DIFFER"
                print(f"{name}: {len(plain)} files, {result}, {time.monotonic() - start:.0f} s")
        finally:
            service.kill()
            service.wait()
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
