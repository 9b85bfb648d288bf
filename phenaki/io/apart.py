"""Outputs and inputs of a command never contain each other, links resolved."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import AnyPath, PathLike


def check_apart(flag: str, output: PathLike, inputs: Iterable[tuple[str, Any]]) -> None:
    """Checks that an output and the inputs, (flag, path) each, do not contain each other.

    Links are resolved. Inputs without a path are None or "".

    Raises:
        UserError: they do; names both.
    """
    for name, given in inputs:
        if not given:
            continue
        inner, outer = resolved(f"--{flag}", output), resolved(f"--{name}", given)
        if isinstance(outer, Path) and _is_pipe(outer):
            raise UserError(f"--{name}={given}: is a pipe, which may never end; give a file.")
        both = f"--{flag}={output}: must not"
        if inner == outer or _same(inner, outer):
            raise UserError(f"{both} be --{name}={given}; give another folder.")
        if _is_inside(inner, outer):
            raise UserError(f"{both} lie inside --{name}={given}; give another folder.")
        if _is_inside(outer, inner):
            raise UserError(f"{both} contain --{name}={given}; give another folder.")


def resolved(what: str, given: PathLike) -> AnyPath:
    """`given` without links; `what` names it in the `UserError` for a link to itself."""
    try:
        if not paths.is_remote(given):
            os.stat(given)  # from Python 3.13 on `resolve` takes a loop for a path
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{what}={given}: is a link to itself.") from None
    return paths.absolute(given)


def _is_inside(inner: AnyPath, outer: AnyPath) -> bool:
    if type(inner) is not type(outer):
        return False
    return outer in inner.parents or any(_same(parent, outer) for parent in inner.parents)


def _is_pipe(path: Path) -> bool:
    try:
        return path.is_fifo()
    except OSError:  # a folder above it is closed to us; opening it says so
        return False


def _same(one: AnyPath, other: AnyPath) -> bool:
    """Whether two paths are one folder, as on a disk that ignores case or is mounted twice."""
    try:
        local = isinstance(one, Path) and isinstance(other, Path)
        return local and os.path.samefile(one, other)
    except OSError:
        return False
