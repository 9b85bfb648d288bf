"""The flags that the training commands have, and those of the processes of a job."""

import importlib
import inspect
import signal
import sys
import threading
from typing import Any

from absl import flags
from ml_collections import config_flags

from phenaki import hosts
from phenaki.schema.help import lines

flags.disclaim_key_flags()  # they are of the command that defines them


def define_training(kind: str, *files: str) -> list[str]:
    """Defines what every training command has; the presets of `files` are configs of `kind`.

    Returns the lines of --help on these presets and on the fields of such a config.
    """
    text = " or ".join(f"configs/{file}.py:VARIANT" for file in files)
    config_flags.DEFINE_config_file("config", None, text)
    flags.mark_flag_as_required("config")
    flags.DEFINE_string("workdir", None, "where checkpoints, logs and samples go", required=True)
    flags.DEFINE_string(
        "profile", "", "FIRST:END, steps to trace for xprof, such as 100:110; see docs/speed.md"
    )
    flags.DEFINE_enum(
        "track", "", ["", "wandb", "trackio"], "send the metrics there, too; see docs/launch.md"
    )
    define_processes()
    return [*presets(*files), *lines(kind)]


def presets(*files: str) -> list[str]:
    """The variants of the preset `files`, and what may follow their names, as lines of --help."""
    result = ["", "presets, FILE:VARIANT:"]
    for file in files:
        module = importlib.import_module(f"phenaki.configs.{file}")
        named = {f"{file}:{name}": variant for name, variant in module.VARIANTS.items()}
        options = getattr(module, "OPTIONS", {})
        named |= {f"{file}:VARIANT,{name}=...": option for name, option in options.items()}
        for name, function in named.items():
            result.append(f"  {name}")
            result.append(f"      {(inspect.getdoc(function) or '').partition(chr(10))[0]}")
    return result


def define_processes() -> None:
    """Defines how the processes of a job find each other."""
    flags.DEFINE_string("coordinator", "", "host:port of process 0; see docs/launch.md")
    flags.DEFINE_integer("processes", 0, "of the job, where JAX does not find them itself")
    flags.DEFINE_integer("process", -1, "index of this process, from 0")


def value(name: str) -> Any:
    """The value of a flag of the command line, or its default."""
    return flags.FLAGS[name].value


def start() -> Any:
    """Joins the processes of the job; returns what observes its steps, for --profile and --track.

    Raises:
        UserError: --profile is no range of steps, or the job cannot be joined.
    """
    from phenaki.planning import speed

    observe = speed.observe(value("profile"), value("track"))
    join()
    preemptible()
    return observe


def preemptible() -> None:
    """From now on SIGTERM and SIGHUP end this process as they end a run, before its first step too.

    Where a run begins, `phenaki.train.watchdog` takes the signals, to save a checkpoint first. Of a
    job's processes JAX has SIGTERM, and tells all of them.
    """
    from phenaki import cli
    from phenaki.commands.main import ending
    from phenaki.train.watchdog import as_sigterm

    def end():
        sys.stderr.write("preempted; start it again\n")
        sys.exit(cli.PREEMPTED)

    if threading.current_thread() is not threading.main_thread():
        return
    handle: Any = ending(end)
    if hosts.joined():
        handle = as_sigterm
    else:
        signal.signal(signal.SIGTERM, handle)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, handle)


def join() -> None:
    """Joins the processes of the job."""
    from phenaki import sharding

    sharding.start(value("coordinator"), value("processes"), value("process"))
