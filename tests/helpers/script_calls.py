"""Calls the project's scripts in this process, with their flags as on a command line."""

import importlib.util
import sys
from pathlib import Path

from absl import flags

from phenaki import cli

ROOT = Path(__file__).parents[2]


def call(script: str, *arguments: str) -> None:
    """Runs `main` of a script's command; its flags leave absl's registry: commands share names."""
    known = flags.FLAGS
    before, argv = set(known), sys.argv
    name = f"script_{Path(script).stem}"
    path = ROOT / "phenaki/commands" / Path(script).name
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        sys.argv = [script, *arguments]  # config flags look for overrides here
        module.main(cli._parse(module.main, sys.argv))
    finally:
        known.unparse_flags()
        known.mark_as_parsed()
        for flag in set(known) - before:
            delattr(known, flag)
        sys.argv = argv
        del sys.modules[name]
