"""Calls the project's scripts in this process, with their flags as on a command line."""

import contextlib
import importlib.util
import sys
from pathlib import Path

from absl import flags

from phenaki import cli

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def loaded(script: str):
    """(the module of a script, the names of its flags), run afresh.

    The flags leave absl's registry again: scripts share names.
    """
    before, name = set(flags.FLAGS), f"script_{Path(script).stem}"
    folder = "experiments" if script.startswith("experiments/") else "phenaki/commands"
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / Path(script).name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module, set(flags.FLAGS) - before
    finally:
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
        del sys.modules[name]


def call(script: str, *arguments: str) -> None:
    """Runs `main` of a script's command."""
    argv = sys.argv
    with loaded(script) as (module, _):
        try:
            sys.argv = [script, *arguments]  # config flags look for overrides here
            module.main(cli._parse(module.main, sys.argv))
        finally:
            flags.FLAGS.unparse_flags()
            flags.FLAGS.mark_as_parsed()
            sys.argv = argv
