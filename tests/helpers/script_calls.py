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
    folder, _, file = script.rpartition("/")
    path = ROOT / ("phenaki/commands" if folder in ("", "scripts") else folder) / file
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # benchmarks import each other
    try:
        spec.loader.exec_module(module)
        yield module, set(flags.FLAGS) - before
    finally:
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
        sys.path.remove(str(path.parent))
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
