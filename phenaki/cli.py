"""Command-line entry point of the commands: flags, a short --help, and one-line errors."""

import errno
import functools
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections.config_flags import config_flags, config_path

from phenaki import hosts
from phenaki.errors import Preempted, UserError, bucket_reason, did_you_mean
from phenaki.io import compilation_cache, heap, shipped, streams, verify

PREEMPTED = 128 + signal.SIGTERM
NO_VERIFY = flags.DEFINE_bool(
    "no_verify", False, "load models without comparing them with their checksums"
)
# A full disk or quota, too many open files, a disk that is read only.
NO_TEMPORARY = "No usable temporary directory"
LACKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EROFS}
HELP = {"-h", "--h", "-help", "--help", "-helpshort", "--helpshort", "-?", "--?"}
# How Python's own conversions complain; the expected type says it better.
_CONVERSION = re.compile(r"invalid literal|could not convert|Non-boolean argument|malformed")


def run(main: Callable[[list[str]], Any], wording: Callable[[str], str] = str) -> NoReturn:
    """Parses the flags, runs ``main(argv)`` and exits.

    The exit code is 0 (or the integer that ``main`` returns), 2 for a user's mistake, 130 for an
    interrupt and 143 for a run that was preempted and saved its checkpoint. A mistake is a
    ``UserError``, a wrong flag, config path or config override, or a file that cannot be opened or
    written: it is reported as one line ``error: ...`` on stderr. Anything else keeps its traceback.
    The processes of a job end together, with the exit code of the first. What JAX compiles is kept
    for the next command (`compilation_cache`), freed memory for the next step (`heap`). `wording`
    changes help and mistakes to how the command was called.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with streams.enduring():
        _run(main, wording)
    raise AssertionError("app.run returned")


def _run(main: Callable[[list[str]], Any], wording: Callable[[str], str]) -> None:
    def start(argv: list[str]) -> Any:
        heap.keep_freed()
        compilation_cache.enable()
        code = _call(main, argv)
        return code if isinstance(code, int) else 0  # sys.exit would print anything else, and fail

    try:
        app.run(start, flags_parser=functools.partial(_parse, main, wording=wording))
    except KeyboardInterrupt:
        _exit(130, "interrupted")
    except UserError as error:
        _exit(2, wording(f"error: {error}"))
    except Preempted as error:
        _exit(PREEMPTED, str(error))
    except OSError as error:
        if error.filename is None:
            if why := bucket_reason(error) or _lack(error):
                _exit(2, f"error: {why}")
            _end_all(error)
            raise
        _exit(2, f"error: {_file_name(error.filename)}: {error.strerror or error}")
    except Exception as error:
        if why := bucket_reason(error) or _lack(error):
            _exit(2, f"error: {why}")
        _end_all(error)
        raise


def _lack(error: Exception) -> str | None:
    """What the machine lacks, by an error of the system or of a library that repeats its words."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and (error.errno in LACKS or NO_TEMPORARY in text):
        return error.strerror
    return text[:300] if any(os.strerror(code) in text for code in LACKS) else None


def _call(main: Callable[[list[str]], Any], argv: list[str]) -> Any:
    if not NO_VERIFY.value:
        return main(argv)
    with verify.unverified():
        return main(argv)


def _end_all(error: Exception) -> None:
    """Prints `error` and ends all hosts of a job with 1; returns in a process of its own."""
    if hosts.joined():
        traceback.print_exception(error)
        # Without notes, such as JAX's on its own frames.
        hosts.end(1, traceback.format_exception_only(error)[0])


def _exit(code: int, message: str) -> NoReturn:
    line = " ".join(message.split())
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")
    if code != PREEMPTED:  # all hosts stop at the same step, after the checkpoint
        hosts.end(code, line)
    sys.exit(code)


def _file_name(name: Any) -> str:
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _parse(
    main: Callable[[list[str]], Any], argv: list[str], wording: Callable[[str], str] = str
) -> list[str]:
    """Parses ``argv`` into absl's ``FLAGS``; whatever it rejects is a ``UserError``."""
    if not HELP.isdisjoint(argv[1:]):
        streams.result(wording(_help(main.__module__)).removesuffix("\n"))
        sys.exit(0)
    _find_presets(argv)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname)) from None
    except flags.IllegalFlagValueError as error:
        _raise_illegal_value(error)
    except flags.Error as error:
        raise UserError(str(error)) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        # ml_collections reports a wrong override with whatever its look-up raised.
        _raise_wrong_override(argv)
        raise
    if (own := getattr(sys.modules[main.__module__], "ARGUMENTS", None)) is not None:
        flags.FLAGS[own.name].value = [*own.value, *rest[1:]]
    elif len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; options are written --name=value")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS["verbosity"].value = logging.WARNING  # libraries are verbose at level info
        flags.FLAGS["verbosity"].using_default_value = False
    return rest


def _unknown_flag(name: str) -> str:
    head, dot, tail = name.partition(".")
    known = [flag.name for flag in _config_flags()] if dot else list(flags.FLAGS)
    hint = did_you_mean(f"--{head}{dot}{tail}", [f"--{flag}{dot}{tail}" for flag in known])
    return f"unknown flag --{name}{hint or '; --help lists the flags'}"


def _raise_illegal_value(error: flags.IllegalFlagValueError) -> NoReturn:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__context__) is not None:
        chain.append(cause)
    from_config = [link for link in chain if isinstance(link, UserError)]
    if from_config:
        raise UserError(str(from_config[-1])) from None
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
        return f"must be one of {', '.join(choices)}{did_you_mean(value, choices)}"
    if outside := _outside(flag.parser, value):
        return outside
    if _CONVERSION.search(reason):
        example = "" if flag.default is None else f", such as {flag.default}"
        return f"must be of type {flag.flag_type()}{example}"
    return reason


def _outside(parser: Any, value: str) -> str | None:
    """Between which numbers `value` must lie, and the nearest; None if it lies there."""
    low, high = getattr(parser, "lower_bound", None), getattr(parser, "upper_bound", None)
    if low is None and high is None:
        return None
    try:
        number = parser.convert(value)
    except (TypeError, ValueError):
        return None
    if low is not None and number < low:
        nearest = low
    elif high is not None and number > high:
        nearest = high
    else:
        return None
    one = f"at most {high}" if low is None else f"at least {low}"
    return f"must be {one if None in (low, high) else f'{low} to {high}'}; nearest is {nearest}"


def _config_flags() -> Iterator[flags.Flag]:
    for name in flags.FLAGS:
        if config_flags.is_config_flag(flags.FLAGS[name]):
            yield flags.FLAGS[name]


def _config_paths(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag name, path:variant) of every config file that the command line names."""
    for name, place, start in _config_places(argv):
        yield name, argv[place][start:]


def _config_places(argv: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yield (flag name, index in `argv`, first character there) of every path:variant."""
    for flag in _config_flags():
        for place, argument in enumerate(argv[1:], 1):
            match = re.fullmatch(rf"--?{re.escape(flag.name)}(=.*)?", argument)
            if match and match[1]:
                yield flag.name, place, match.start(1) + 1
            elif match and place + 1 < len(argv):
                yield flag.name, place + 1, 0


def _find_presets(argv: list[str]) -> None:
    """Puts the files of presets into `argv`, which ml_collections reads, too.

    cvivit:small and configs/cvivit.py:small name the preset in whatever folder one works.
    """
    for name, place, start in _config_places(argv):
        path, colon, variant = argv[place][start:].partition(":")
        file = shipped.find(path, shipped.PRESETS)
        if not file.is_file():
            raise UserError(f"--{name}={path}{colon}{variant}: {_no_such_config(Path(path))}")
        if "get_config" not in file.read_text():
            raise UserError(f"--{name}={path}: has no get_config, as a config file must.")
        if not variant and "\nVARIANTS = " in file.read_text():
            sys.stderr.write(f"--{name}={path}: no variant is named, so the paper's is taken\n")
        argv[place] = f"{argv[place][:start]}{file}{colon}{variant}"


def _no_such_config(file: Path) -> str:
    if file.suffix != ".py" and not any(file.parent.parts):
        presets = shipped.presets()
        hint = did_you_mean(file.name, presets) or f"; presets are {', '.join(presets)}"
        return f"no such file or preset{hint}"
    hint = did_you_mean(file.stem, [other.stem for other in file.parent.glob("*.py")])
    return f"no such file{hint.replace('?', '.py?')}"


def _raise_wrong_override(argv: list[str]) -> None:
    """Raises ``UserError`` for the first override in ``argv`` that names no field."""
    from flax.traverse_util import flatten_dict

    for name, path in _config_paths(argv):
        config: Any = flags.FLAGS[name].parser.parse(path)  # parsing failed: no flag holds it
        for argument in argv[1:]:
            match = re.match(rf"--?(?:no)?{re.escape(name)}\.([^=]+)", argument)
            if match is None:
                continue
            try:
                config_path.get_type(match[1], config)
            except (AttributeError, LookupError, TypeError, ValueError):
                fields = list(flatten_dict(config.to_dict(), sep="."))
                raise UserError(_unknown_field(name, match[1], fields)) from None


def _unknown_field(name: str, field: str, fields: list[str]) -> str:
    # The right key in another section is nearer than one that is spelt alike.
    moved = [f"; did you mean {path}?" for path in fields if path.endswith(f".{field}")]
    hint = moved[0] if moved else did_you_mean(field, fields)
    section = field[: field.rfind(".") + 1]
    within = [path.removeprefix(section) for path in fields if path.startswith(section)]
    where = f"{name}.{section}"[:-1] if section and within else name
    known = dict.fromkeys(path.split(".")[0] for path in within or fields)
    hint = hint.replace("mean ", f"mean --{name}.") or f"; {where} has {', '.join(known)}"
    return f"--{name}.{field}: no such field{hint}"


def _help(module: str) -> str:
    """The docstring of a module, the flags that it defines, and its `CONFIG_FIELDS`."""
    lines = [(sys.modules[module].__doc__ or "").strip(), "", "flags:"]
    own = flags.FLAGS.get_key_flags_for_module(sys.modules[module])
    for flag in sorted(own, key=lambda flag: flag.name):
        is_config = config_flags.is_config_flag(flag)
        value = "FILE[:VARIANT]" if is_config else flag.flag_type().split()[0]
        silent = flag.default is None or flag.default is False or flag.default == ""
        text = flag.help or ""
        text += f"; --{flag.name}.KEY=VALUE after it changes one field" if is_config else ""
        text += "" if silent else f" (default: {flag.default})"
        lines.append(f"  --{flag.name}" if flag.boolean else f"  --{flag.name}={value}")
        lines.append(textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6))
    lines += getattr(sys.modules[module], "CONFIG_FIELDS", [])
    return "\n".join(lines) + "\n"
