"""Starts a command in a clone, or says how to install what this Python lacks."""

import importlib.util
import sys
from pathlib import Path

NEEDED = ("phenaki", "absl", "jax", "flax", "tensorflow")


def run(command):
    """Runs `phenaki COMMAND` with the flags of `sys.argv`, and exits."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            sys.stderr.write(f"error: {_remedy(name)}\n")
            sys.exit(2)
    from phenaki.commands import main

    main.run(command)


def _remedy(lacks):
    root = Path(__file__).resolve().parents[1]
    is_there = (root / ".venv/bin/activate").is_file() and Path(sys.prefix) != root / ".venv"
    setup = "" if is_there else "make setup && "
    return (
        f"{sys.executable} lacks {lacks}; in {root}: {setup}source .venv/bin/activate "
        "(docs/install.md has other ways)"
    )
