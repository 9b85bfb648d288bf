"""The table of layouts in docs/data.md, made with scripts/prepare_data.py.

python tests/campaigns/layout_table.py    prints Markdown; some minutes
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from environment import ROOT

# isort: split
import layouts
from annotations import ANNOTATIONS

FLAGS = {"tfds ucf101": "--fps=25", "tfds webvid": "--fps=30"}


def row(name: str, work: Path) -> str:
    """One layout: command, files in, clips out, skipped with reasons, seconds."""
    source = work / name / "in"
    if name in ANNOTATIONS:
        source.mkdir(parents=True)
        ANNOTATIONS[name](source)
    else:
        source = layouts.make(name, source)
    files = sum(path.is_file() for path in source.rglob("*"))
    shown = f"tfds:{name.split()[1]}" if name.startswith("tfds") else "DIR"
    flags = ["--size=64", *FLAGS.get(name, "").split()]
    output = work / name / "set"
    command = [sys.executable, ROOT / "scripts" / "prepare_data.py", f"--input={source}"]
    subprocess.run(
        [*command, f"--output={output}", *flags], cwd=ROOT, check=True, capture_output=True
    )
    report = json.loads((output / "report.json").read_text())
    clips = ", ".join(f"{split} {count}" for split, count in report["clips"].items())
    skipped = [f"{reason} {count}" for reason, count in report["reasons"].items()]
    skipped += [f"{problem['reason'].split(': ')[-1]} 1" for problem in report["problems"]]
    recognised = report["captions"].split(",")[0].split(":")[0]
    cells = [name, f"`--input={shown} {' '.join(flags)}`", recognised, files, clips]
    return " | ".join(map(str, [*cells, ", ".join(skipped) or "none", report["seconds"]]))


def main() -> None:
    """Prints the table."""
    print("| layout | command | recognised as | files in | clips out | skipped | seconds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        for name in (*layouts.LAYOUTS, *ANNOTATIONS):
            print(f"| {row(name, Path(directory))} |", flush=True)


if __name__ == "__main__":
    main()
