"""`phenaki COMMAND --flags`: the commands by group, each a module with flags and `main`."""

import ast
import contextlib
import importlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from phenaki import __version__
from phenaki.errors import did_you_mean

# Group -> command -> the module of this folder with its flags and `main`.
GROUPS = {
    "data": {
        "prepare": "prepare_data",
        "inspect": "inspect_data",
        "encode": "encode_dataset",
    },
    "training": {
        "train-cvivit": "train_cvivit",
        "train-maskgit": "train_maskgit",
        "train-critic": "train_critic",
        "train-student": "train_student",
        "doctor": "doctor",
        "plan": "plan",
        "demo": "demo",
    },
    "sampling": {
        "sample": "sample",
        "story": "story",
        "fill": "fill",
        "reconstruct": "reconstruct",
        "studio": "studio",
    },
    "models": {
        "evaluate": "evaluate",
        "compare": "compare",
        "export": "export",
        "convert": "convert_weights",
        "push": "push",
        "pull": "pull",
    },
}
MODULES = {name: module for group in GROUPS.values() for name, module in group.items()}
SHELLS = ("bash", "zsh", "fish")
AGAIN = 0.05  # seconds until an interrupt is tried again that came where it would be lost
# Functions that the garbage collector calls: what they raise is printed and dropped.
COLLECTED = ("__del__", "_xla_gc_callback")
_SCRIPT = re.compile(r"(?:python )?scripts/(\w+)\.py")  # as help and errors name it in a clone


def main() -> NoReturn:
    """The console command: `phenaki COMMAND --flags`, or `phenaki --help`."""
    with _interruptible():
        _main(sys.argv[1:])
    raise AssertionError("_main returned")


def _main(given: list[str]) -> None:
    from phenaki import cli  # within `_interruptible`: libraries take a second to load
    from phenaki.commands import completion

    if not given or given[0] in cli.HELP:
        _show(overview())
    if given[0] == "--version":
        _show(f"phenaki {__version__}\n")
    if given[0].startswith("--completion"):
        shell = given[0].partition("=")[2]
        if shell not in SHELLS:
            _fail(f"--completion={shell}: must be one of {', '.join(SHELLS)}")
        summaries = {name: _summary(module) for name, module in MODULES.items()}
        _show(completion.script(shell, MODULES, summaries))
    if given[0] not in MODULES:
        _fail(_unknown(given[0]))
    sys.argv = [f"phenaki {given[0]}", *given[1:]]
    cli.run(_load(given[0]).main, _as_command)


def _show(text: str) -> NoReturn:
    """Prints `text`, whose reader may be gone, and ends."""
    from phenaki.errors import UserError
    from phenaki.io import streams

    try:
        with streams.enduring():
            streams.result(text.removesuffix("\n"))
    except UserError as error:
        _fail(str(error))
    sys.exit(0)


def _fail(line: str) -> NoReturn:
    from phenaki.io import streams

    with streams.enduring():
        sys.stderr.write(f"error: {line}\n")
    sys.exit(2)


def run(command: str) -> NoReturn:
    """Runs a command with the flags of `sys.argv`, and exits (`cli.run`)."""
    with _interruptible():
        from phenaki import cli

        cli.run(_load(command).main)
    raise AssertionError("cli.run returned")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ends the process with the code of `cli.run` where an interrupt comes before it.

    An interrupt waits until no module loads: what is raised within the start of an extension is
    turned into other errors by some, and ends the process of others. It waits for the garbage
    collector, too, which drops what is raised in it. Once the process ends, its work done or its
    mistake reported, an interrupt is ignored: libraries take a moment to end, and all is written.
    """

    def interrupt():
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ending(interrupt))
    try:
        yield
    except KeyboardInterrupt:
        _interrupted()
    finally:
        ends = isinstance(sys.exception(), SystemExit) and not _waits_for_hosts()
        signal.signal(signal.SIGINT, signal.SIG_IGN if ends else before)


def ending(end: Callable[[], NoReturn]) -> Callable[[int, Any], None]:
    """A signal handler that calls `end`, which raises, as soon as what it raises is not lost."""

    def handle(number: int, frame: Any) -> None:
        if not _would_be_lost(frame):
            end()
        # To the main thread, which may wait by then: one of another thread does not wake it.
        main_thread = threading.main_thread().ident
        again = threading.Timer(AGAIN, signal.pthread_kill, [main_thread, number])
        again.daemon = True
        again.start()

    return handle


def _waits_for_hosts() -> bool:
    """Whether the end may be a long wait for the other processes of a job."""
    hosts = sys.modules.get("phenaki.hosts")
    return bool(hosts and hosts.joined())


def _would_be_lost(frame: Any) -> bool:
    """Whether an import or the garbage collector is under way in `frame` or its callers."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_name in COLLECTED:
            return True
        frame = frame.f_back
    return False


def _interrupted() -> NoReturn:
    sys.stderr.write("interrupted\n")
    sys.exit(130)


def _load(command: str) -> Any:
    return importlib.import_module(f"phenaki.commands.{MODULES[command]}")


def _as_command(text: str) -> str:
    """`text` with the commands instead of their scripts."""
    return _SCRIPT.sub(lambda call: f"phenaki {_by_module(call[1]) or call[1]}", text)


def _by_module(name: str) -> str | None:
    return next((command for command, module in MODULES.items() if module == name), None)


def overview() -> str:
    """The help of `phenaki`: a line per command, in groups."""
    lines = ["usage: phenaki COMMAND --flag=value ...", ""]
    width = max(map(len, MODULES))
    for group, commands in GROUPS.items():
        lines.append(f"{group}:")
        lines += [f"  {name:<{width}}  {_summary(module)}" for name, module in commands.items()]
        lines.append("")
    lines.append("phenaki COMMAND --help lists the flags of a command.")
    lines.append("phenaki --version prints the version.")
    lines.append("phenaki --completion=bash|zsh|fish prints a script that completes them.")
    return "\n".join([*lines, ""])


def _summary(module: str) -> str:
    """First line of a command's docstring; the module is not imported, which takes seconds."""
    text = Path(__file__).with_name(f"{module}.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _unknown(name: str) -> str:
    known = _by_module(name.removesuffix(".py").replace("-", "_"))  # the name of its script
    hint = f"; did you mean {known}?" if known else did_you_mean(name, MODULES)
    return f"unknown command {name}{hint or '; phenaki --help lists the commands'}"


if __name__ == "__main__":
    main()
