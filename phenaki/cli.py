"""What every script shares: one clear line for a user's mistake, a short help, a progress line."""

import difflib
import functools
import itertools
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from phenaki.errors import Preempted, UserError

_HELP = {"-h", "--h", "-help", "--help", "-helpshort", "--helpshort", "-?", "--?"}
# How Python's own conversions complain; the expected type says it better.
_CONVERSION = re.compile(r"invalid literal|could not convert|Non-boolean argument|malformed")


def run(main: Callable[[list[str]], Any]) -> NoReturn:
    """Run ``main(argv)`` as a command, flags parsed, and exit.

    Exit code 0 (or what ``main`` returns), 2 for a user's mistake, 130 for an interrupt, 143 for a
    run that was told to stop and saved everything. A mistake
    is a ``UserError``, a wrong flag, config path or config override, or a file that cannot be
    opened or written: one line ``error: ...`` on stderr. Anything else keeps its traceback.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app.run(main, flags_parser=functools.partial(_parse, main))
    except KeyboardInterrupt:
        _exit(130, "interrupted")
    except UserError as error:
        _exit(2, f"error: {error}")
    except Preempted as error:
        _exit(128 + signal.SIGTERM, str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _exit(2, f"error: {_file_name(error.filename)}: {error.strerror or error}")
    raise AssertionError("app.run returned")


def _exit(code: int, message: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(" ".join(message.split()) + "\n")
    sys.exit(code)


def _file_name(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _parse(main: Callable[[list[str]], Any], argv: list[str]) -> list[str]:
    """Parse the flags of ``argv`` into absl's ``FLAGS``; every refusal is a ``UserError``."""
    if not _HELP.isdisjoint(argv[1:]):
        sys.stdout.write(_help(sys.modules[main.__module__].__doc__ or ""))
        sys.exit(0)
    for name, path in _config_paths(argv):
        _check_config_path(name, path)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname)) from None
    except flags.IllegalFlagValueError as error:
        _raise_illegal_value(error)
    except flags.Error as error:
        raise UserError(str(error)) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        # ml_collections reports a wrong override with whatever its lookup raised.
        _check_overrides(argv)
        raise
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; options are written --name=value")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS["verbosity"].value = logging.WARNING  # libraries narrate at level info
        flags.FLAGS["verbosity"].using_default_value = False
    return rest


def _unknown_flag(name: str) -> str:
    head, dot, tail = name.partition(".")
    near = difflib.get_close_matches(head, list(flags.FLAGS), 1)
    hint = f"; did you mean --{near[0]}{dot}{tail}?" if near else "; --help lists the flags"
    return f"unknown flag --{name}{hint}"


def _raise_illegal_value(error: flags.IllegalFlagValueError) -> NoReturn:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__context__) is not None:
        chain.append(cause)
    said_by_config = [link for link in chain if isinstance(link, UserError)]
    if said_by_config:
        raise UserError(str(said_by_config[-1])) from None
    if "Error whilst parsing config file" in str(error):
        raise chain[2] from None  # a defect of the config file: show where it is
    match = re.match(r"flag --(\S+?)=(.*?): (.*)", str(error), re.DOTALL)
    if match is None:
        raise UserError(str(error)) from None
    name, value, reason = match.groups()
    if value == "None" and "other than None" in reason:
        raise UserError(f"--{name} is required") from None
    raise UserError(f"--{name}={value}: {_reason(name, value, reason)}") from None


def _reason(name: str, value: str, reason: str) -> str:
    flag = flags.FLAGS[name]
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return f"must be one of {', '.join(choices)}{_did_you_mean(value, choices)}"
    if _CONVERSION.search(reason):
        example = "" if flag.default is None else f", such as {flag.default}"
        return f"must be of type {flag.flag_type()}{example}"
    return reason


def _config_flags() -> Iterator[flags.Flag]:
    for name in flags.FLAGS:
        if config_flags.is_config_flag(flags.FLAGS[name]):
            yield flags.FLAGS[name]


def _config_paths(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag name, path:variant) of every config file that the command line names."""
    for flag in _config_flags():
        for argument, following in itertools.pairwise([*argv[1:], ""]):
            match = re.fullmatch(rf"--?{re.escape(flag.name)}(=(?P<path>.*))?", argument)
            if match:
                yield flag.name, following if match["path"] is None else match["path"]


def _check_config_path(name: str, path: str) -> None:
    file = Path(path.split(":", 1)[0])
    if file.is_file():
        return
    near = difflib.get_close_matches(file.stem, [p.stem for p in file.parent.glob("*.py")], 1)
    hint = f"; did you mean {file.with_name(near[0])}.py?" if near and file.name else ""
    raise UserError(f"--{name}={path}: no such file{hint}")


def _check_overrides(argv: list[str]) -> None:
    """Raise for the first override in ``argv`` that names no field of its config."""
    paths = dict(_config_paths(argv))
    for flag in _config_flags():
        if flag.name not in paths:
            continue
        config = flag.parser.parse(paths[flag.name])  # parsing failed: no flag holds it
        for argument in argv[1:]:
            match = re.match(rf"--?(?:no)?{re.escape(flag.name)}\.([^=]+)", argument)
            if match:
                _check_field(flag.name, config, match[1])


def _check_field(name: str, config: Any, field: str) -> None:
    node, at = config, name
    for key in field.split("."):
        key, index, _ = key.partition("[")
        if not isinstance(node, config_dict.ConfigDict | Mapping):
            raise UserError(f"--{name}.{field}: {at} is {node!r} and has no fields")
        if key not in node:
            near = difflib.get_close_matches(key, [str(k) for k in node], 1)
            same = [path for path in _leaves(config, name) if path.rsplit(".", 1)[-1] == key]
            if near or same:
                hint = f"did you mean --{at}.{near[0]}?" if near else f"did you mean --{same[0]}?"
            else:
                hint = f"its keys are {', '.join(map(str, node))}"
            raise UserError(f"--{name}.{field}: {at} has no key {key!r}; {hint}")
        if index:
            return  # an element of a sequence: beyond what is checked here
        node, at = node[key], f"{at}.{key}"


def _leaves(node: Any, at: str) -> Iterator[str]:
    if isinstance(node, config_dict.ConfigDict | Mapping):
        for key in node:
            yield from _leaves(node[key], f"{at}.{key}")
    else:
        yield at


def _did_you_mean(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _help(doc: str) -> str:
    lines = [doc.strip(), "", "flags:"]
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda f: f.name):
        is_config = config_flags.is_config_flag(flag)
        value = "FILE[:VARIANT]" if is_config else flag.flag_type().split()[0]
        silent = flag.default is None or flag.default is False or flag.default == ""
        text = flag.help or ""
        text += f"; --{flag.name}.KEY=VALUE after it changes one field" if is_config else ""
        text += "" if silent else f" (default: {flag.default})"
        lines.append(f"  --{flag.name}" if flag.boolean else f"  --{flag.name}={value}")
        lines.append(textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines) + "\n"
