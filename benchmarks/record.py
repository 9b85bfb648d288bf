"""Writer of benchmark results as JSON, with the hardware and package versions."""

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

from phenaki.io import artifacts, outputs


def admit(path: str | Path | None) -> None:
    """Raises `UserError` if `--output=path`, where given, is a file that `write` did not write."""
    if path:
        outputs.admit_file("output", path, lambda head: head.startswith(b'{\n  "date": "'))


def write(path: str | Path, packages: tuple[str, ...], **measured) -> None:
    """Writes `measured` and the versions of `packages`, and prints the path."""
    report = dict(
        date=datetime.date.today().isoformat(),
        processor=platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),  # that this process may use
        python=platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        **measured,
    )
    path = Path(path)
    admit(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(path, report, indent=2)
    print(path)
