"""One writer per place: an owner file with a lease, on local disks and in buckets.

`OWNER` in a folder names the process that writes there. Another one is refused until the file is
removed, at the end of the first; or the first, killed, is gone from the same host; or it has not
renewed its lease for `STALE` seconds, by the clock of the file system or bucket. For that time a
start waits: a run that resumes elsewhere finds the lease of the machine that was taken away. The
processes of a job are one owner: process 0 has the lease.
"""

import contextlib
import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging

from phenaki import hosts
from phenaki.errors import UserError
from phenaki.io import artifacts, paths
from phenaki.io.paths import AnyPath, PathLike

OWNER = ".owner.json"
STALE = 120.0  # seconds after which a lease that was not renewed is free
RENEWED = 15.0  # seconds between two renewals
ENDS = 20.0  # seconds that an end waits for a renewal under way
LOOKS = 2.0  # seconds between two looks at the lease of another machine


class Lease:
    """The right to write in a folder, renewed by a thread until `release`."""

    def __init__(self, directory: AnyPath, what: str):
        self.directory, self.what = directory, what
        self._path = directory / OWNER
        self._own = _this_process()
        self._taken_by: dict[str, Any] | None = None
        self._ended = threading.Event()
        _await_lost(self._path, what)
        with _alone(directory):
            if (found := _read(self._path)) is not None and not _is_free(self._path, found):
                raise UserError(_refusal(what, found, _age(self._path)))
            artifacts.write_json(self._path, self._own)
        # In a bucket nothing is created at once by one of two: the later writer has it.
        self.check()
        self._renewal = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewal.start()

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            # A disk or bucket that does not answer now may do so the next time.
            with contextlib.suppress(Exception):
                if self._is_own():
                    self._touch()

    def _is_own(self) -> bool:
        found = _read(self._path)
        if found is not None and found.get("id") != self._own["id"]:
            self._taken_by = found
        return self._taken_by is None

    def _touch(self) -> None:
        if isinstance(self._path, Path) and self._path.exists():
            with contextlib.suppress(OSError):  # some mounts refuse it
                os.utime(self._path)
                return
        artifacts.write_json(self._path, self._own)

    def check(self) -> None:
        """Raises `UserError` if another process has taken the place, as after a long suspension."""
        with contextlib.suppress(Exception):  # no answer says nothing of another process
            self._is_own()
        if self._taken_by is not None:
            raise UserError(_refusal(self.what, self._taken_by or {}, None))

    def release(self) -> None:
        """Frees the place; a second call, or one in a forked process, does nothing."""
        if self._ended.is_set() or self._own["pid"] != os.getpid():
            return
        self._ended.set()
        # A renewal under way would write the file once more after its removal.
        self._renewal.join(ENDS)
        with contextlib.suppress(Exception):  # the lease ends by itself
            if self._is_own():
                self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def owned(directory: PathLike, what: str) -> Iterator[Lease | None]:
    """Holds the lease of an existing folder while the block runs; `what` names it, as a flag.

    Yields None in all processes of a job but the first.

    Raises:
        UserError: another process has the lease; names its host and process, and their ages.
    """
    job = hosts.joined()
    if job is not None and job.process_id:
        yield None
        return
    lease = Lease(paths.path(directory), what)
    hosts.AT_END.append(lease.release)
    try:
        yield lease
    finally:
        hosts.AT_END.remove(lease.release)
        lease.release()


@contextlib.contextmanager
def _alone(directory: AnyPath) -> Iterator[None]:
    """Lets one process of this machine at a time look at a local folder's owner and become it."""
    if not isinstance(directory, Path):
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # network file systems lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "system": _system(),
        "since": time.time(),
        "id": secrets.token_hex(8),
    }


def _system() -> str:
    """Where the number of a process means something: a boot, and a container's numbering."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # the host's name has to do


def _born(pid: int) -> str:
    """When a process started, in ticks since the boot; "" where unknown, and of one that ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]


def _read(path: AnyPath) -> dict[str, Any] | None:
    """What an owner file says; None without one, {} where it cannot be read."""
    try:
        found = artifacts.parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    except OSError:
        if paths.is_file(path):
            raise
        return None  # of a missing object epath raises no FileNotFoundError
    return found if isinstance(found, dict) else {}


def _await_lost(path: AnyPath, what: str) -> None:
    """Waits while the owner may be of a machine that is gone: until its lease is renewed, or ends.

    An owner that lives renews within `RENEWED` seconds, and is refused then.
    """
    found, first = _read(path), _renewed(path)
    if found is None or _is_here(found) or _is_free(path, found):
        return
    logging.warning(
        "%s: waits for the lease of process %s on host %s, at most %.0f s.",
        what, found.get("pid", "?"), found.get("host", "?"), STALE,
    )  # fmt: skip
    while first is not None and _renewed(path) == first and not _is_free(path, found):
        time.sleep(LOOKS)


def _renewed(path: AnyPath) -> float | None:
    """When a lease was renewed, by the clock that dates files there; None without a file."""
    try:
        return _seconds(path.stat())
    except FileNotFoundError:
        return None


def _is_here(found: dict[str, Any]) -> bool:
    """Whether an owner's number means something to this process."""
    here = found.get("host") == socket.gethostname() and found.get("system") == _system()
    return here and type(found.get("pid")) is int


def _is_free(path: AnyPath, found: dict[str, Any]) -> bool:
    if _is_here(found):
        if not _lives(found["pid"], found.get("born", "")):
            return True
        if found.get("born"):  # without it the number may be another process's now
            return False
    age = _age(path)
    return age is None or age > STALE


def _lives(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's
    return not born or _born(pid) == born


def _age(path: AnyPath) -> float | None:
    """Seconds since the last renewal, by the clock that dates files there; None without a file."""
    probe = path.with_name(f"{OWNER}.{secrets.token_hex(4)}")
    try:
        renewed: Any = path.stat()
        probe.write_text("")
        now: Any = probe.stat()
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)
    return max(0.0, _seconds(now) - _seconds(renewed))


def _seconds(stat: Any) -> float:
    return float(stat.st_mtime if isinstance(stat, os.stat_result) else stat.mtime)


def _refusal(what: str, found: dict[str, Any], age: float | None) -> str:
    """One line that names the other process; `age` is that of its lease, in seconds."""
    since = found.get("since")
    running = ""
    if isinstance(since, int | float):
        running = f", since {_duration(max(0.0, time.time() - since))}"
    renewed = "" if age is None else f"; its lease was renewed {_duration(age)} ago"
    who = f"process {found.get('pid', '?')} on host {found.get('host', '?')}{running}{renewed}"
    return (
        f"{what}: another run is writing it ({who}). Wait until it ends, or give another folder; "
        f"if its host is gone, the place is free {STALE / 60:.0f} minutes after the last renewal."
    )


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
