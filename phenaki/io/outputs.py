"""What a command may write to: a folder that is empty or its own, apart from what it reads.

One rule for every command. An output folder is empty, or carries the marker of an output of the
same kind, or is refused by name; outputs and inputs never contain each other, links resolved; only
files that a marker or manifest lists are removed. One process writes there at a time (`owner`).
"""

import contextlib
import fnmatch
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from phenaki import hosts
from phenaki.errors import UserError
from phenaki.io import apart, artifacts, owner, paths
from phenaki.io.output_kinds import KINDS
from phenaki.io.paths import AnyPath, PathLike

MARKER = ".phenaki.json"  # {"kind": KIND, "files": [names that `enlist` may replace]}
# Of file systems and other tools; nothing of ours has such a name.
OTHERS = {"lost+found", ".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".gitignore"}
_OWN = re.compile(
    # Notes and logs of a start, of people, a shell or a scheduler; and of file systems.
    r"README(\.\w+)?|(.*[._-])?log\.txt|.*\.(log|out|err)|\.nfs.*|\.fuse_hidden.*|@eaDir|"
    r"\.Trash-\d+|System Volume Information|"
    rf"{re.escape(owner.OWNER)}.*|\.writable|\.shared-[0-9a-f]{{16}}|\..+\.[0-9a-f]{{8}}\.partial"
)


class Claim(NamedTuple):
    """An output folder that this process has for itself; process 0 of a job has the lease."""

    directory: AnyPath
    lease: owner.Lease | None

    def check(self) -> None:
        """Raises `UserError` if another process has taken the place: before what is not undone."""
        if self.lease is not None:
            self.lease.check()


@contextlib.contextmanager
def claimed(
    flag: str,
    directory: PathLike,
    kind: str,
    inputs: Iterable[tuple[str, Any]] = (),
    shared: bool = False,
) -> Iterator[Claim]:
    """Makes and marks the output folder of `--flag`; nobody else writes there while it runs.

    A block that fails before it has written anything leaves no folder that was made for it.

    Args:
        kind: one of `KINDS`.
        inputs: see `apart.check_apart`.
        shared: whether several processes may write there at a time.

    Raises:
        UserError: see `admit`; or another process writes there.
    """
    directory, lease = paths.path(directory), None
    with contextlib.ExitStack() as stack:
        if is_first():
            admit(flag, directory, kind, inputs)
            if not shared:  # another process may be about to write there
                stack.push(functools.partial(_withdraw, directory, _absent(directory)))
            make(flag, directory)
            if not shared:
                lease = stack.enter_context(owner.owned(directory, f"--{flag}={directory}"))
            enlist(directory, (), kind=kind)
        together("output claimed")
        yield Claim(directory, lease)


def _absent(directory: AnyPath) -> list[Path]:
    """The folders that have to be made for a local one, deepest first."""
    if not isinstance(directory, Path):
        return []
    chain = (directory, *directory.parents)
    return list(itertools.takewhile(lambda folder: not os.path.lexists(folder), chain))


def _withdraw(directory: AnyPath, made: list[Path], failed: Any, *_: Any) -> None:
    """Where a block has `failed` and written nothing: removes its marker and what it has `made`."""
    if failed is None or owner.OWNER in paths.names(directory):  # another process has the place
        return
    with contextlib.suppress(OSError):  # folders that are not empty; the error says more
        if foreign(directory) == [MARKER]:
            (directory / MARKER).unlink()
        for folder in made:
            folder.rmdir()


def is_first() -> bool:
    """Whether this is process 0 of its job, or alone: the one that decides for all."""
    job = hosts.joined()
    return job is None or job.process_id == 0


def together(what: str) -> None:
    """Waits until every process of the job is here."""
    if hosts.joined():
        from jax.experimental import multihost_utils  # late: most commands need no JAX

        multihost_utils.sync_global_devices(what)


def admit(
    flag: str, directory: PathLike, kind: str, inputs: Iterable[tuple[str, Any]] = ()
) -> None:
    """Checks that `--flag=directory` may hold an output of `kind`; writes nothing.

    Raises:
        UserError: it is a file, or has something else; or see `apart.check_apart`.
    """
    directory = paths.path(directory)
    apart.resolved(f"--{flag}", directory)
    apart.check_apart(flag, directory, inputs)
    if isinstance(directory, Path) and directory.exists() and not directory.is_dir():
        raise UserError(f"--{flag}={directory}: is a file; give a folder.")
    there = foreign(directory)
    if not there or kind in _kinds(directory, there):
        return
    others = [other for other in _kinds(directory, there) if other in KINDS]
    what = f"holds {others[0]!r} of {KINDS[others[0]].command}" if others else "is not empty"
    some = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
    raise UserError(
        f"--{flag}={directory}: {what} (it has {some}), and nothing of {KINDS[kind].command}; "
        "give a new or empty folder."
    )


def admit_file(
    flag: str,
    path: PathLike,
    is_own: Callable[[bytes], bool],
    inputs: Iterable[tuple[str, Any]] = (),
) -> None:
    """Checks that the file `--flag=path` is absent or of its command, by its first bytes.

    Raises:
        UserError: it is a folder, or something else; or see `apart.check_apart`.
    """
    path = paths.path(path)
    apart.check_apart(flag, path, inputs)
    if isinstance(path, Path) and path.is_dir():
        raise UserError(f"--{flag}={path}: is a folder; give the path of a file.")
    if not paths.is_file(path):
        return
    with path.open("rb") as file:
        head = file.read(2**14)
    if not is_own(head):
        raise UserError(
            f"--{flag}={path}: exists, and is not of this command; move it, or give another path."
        )


def foreign(directory: AnyPath) -> list[str]:
    """The names in a folder that a command may not ignore."""
    # A log that the shell opened: this process writes it, but not by that name.
    streams = []
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            streams.append(os.fstat(stream.fileno()))  # type: ignore[union-attr]
    return [
        name
        for name in paths.names(directory)
        if name not in OTHERS
        and not _OWN.fullmatch(name)
        and not any(_is_file_of(directory / name, stream) for stream in streams)
    ]


def _is_file_of(path: AnyPath, stream: os.stat_result) -> bool:
    try:
        return isinstance(path, Path) and os.path.samestat(os.lstat(path), stream)
    except OSError:
        return False


def _kinds(directory: AnyPath, names: list[str]) -> set[str]:
    """The kinds of output that a folder with these names carries a marker of."""
    if MARKER in names:
        return {str(_marker(directory).get("kind"))}
    found = set()
    for kind, known in KINDS.items():
        by_name = any(re.fullmatch(known.names, name) for name in names)
        whole = bool(known.together) and known.together <= set(names)
        by_all = whole and all(re.fullmatch(known.only, name) for name in names)
        by_name = by_name or by_all
        if by_name or any(_shows(directory, names, *one) for one in known.evidence):
            found.add(kind)
    return found


def _shows(directory: AnyPath, names: list[str], pattern: str, keys: set[str]) -> bool:
    pattern, _, below = pattern.partition("/")
    for name in fnmatch.filter(names, pattern):
        content = artifacts.marked(directory / name / below if below else directory / name)
        if content is not None and keys <= content.keys():
            return True
    return False


def make(flag: str, directory: AnyPath) -> None:
    """Makes a folder; where it is a link to one that is not there yet, that one.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        target = apart.resolved(f"--{flag}", directory)
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.filename is None:  # a bucket
            raise
        raise UserError(f"--{flag}={directory}: cannot be written: {error.strerror}.") from None


def _marker(directory: AnyPath) -> dict[str, Any]:
    return artifacts.marked(directory / MARKER) or {}


def listed(directory: AnyPath) -> list[str]:
    """The names that commands have written to a folder, by its marker."""
    names = _marker(directory).get("files")
    return [name for name in names if is_name(name)] if isinstance(names, list) else []


def is_name(name: Any) -> bool:
    """Whether a name of a marker or manifest is one in its own folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\"} & set(name)


def enlist(
    directory: AnyPath, names: Iterable[str], kind: str = "samples", replaced: str = r"(?!)"
) -> None:
    """Lists `names` in the folder's marker: files that the caller writes next.

    Those listed before whose names match `replaced` are removed.

    Raises:
        UserError: there is a file of such a name that is not listed: it is somebody's.
    """
    names, before, there = list(names), listed(directory), set(paths.names(directory))
    if MARKER not in there and kind in _kinds(directory, others := foreign(directory)):
        before = others  # of an earlier version, which listed nothing
    for name in names:
        if name in there and name not in before:
            raise UserError(
                f"{directory / name}: exists, and is not of {KINDS[kind].command}; move it, or "
                "give another folder."
            )
    old = [name for name in before if name in there and re.fullmatch(replaced, name)]
    kept = [name for name in before if name in there and name not in old]
    files = list(dict.fromkeys([*kept, *names]))
    marker = _marker(directory)
    if marker.get("kind") != kind or marker.get("files", []) != files:
        # Before anything is removed or written: a kill leaves no file that is not listed.
        content = {"kind": marker.get("kind", kind), "files": list(dict.fromkeys([*old, *files]))}
        artifacts.write_json(directory / MARKER, content)
    for name in old:
        (directory / name).unlink(missing_ok=True)
