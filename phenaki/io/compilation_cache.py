"""JAX's persistent compilation cache, in the user's cache folder: later starts load programs.

JAX's own variables come first: ``JAX_COMPILATION_CACHE_DIR`` names another folder, perhaps in a
bucket, and ``JAX_ENABLE_COMPILATION_CACHE=false`` switches the cache off. It holds nothing that
cannot be made again, so that whatever is wrong with it costs time only.
"""

import hashlib
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

from absl import logging

FOLDER = "JAX_COMPILATION_CACHE_DIR"
SWITCH = "JAX_ENABLE_COMPILATION_CACHE"
SETTINGS = {
    # A start of a small model compiles hundreds of programs, most of them in less than JAX's 1 s.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # XLA's own caches would make the folder's path a part of each key up to JAX 0.10: a folder that
    # was copied, or is in the image of a container, would never be of use.
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
}
LARGEST = 4 * 2**30  # bytes of the default folder; beyond, what was not used for longest is removed
LEAST_FREE = 2**30  # bytes of its disk; with less, nothing is stored
_OFF = ("n", "no", "f", "false", "off", "0")  # as JAX reads them
_ERROR = "Error (reading|writing) persistent compilation cache entry for '([^']*)'"


def enable() -> None:
    """Switches the cache on for what this process compiles from now on; never raises.

    Call it before JAX compiles anything. Values that the user has set are kept.
    """
    if os.environ.get(SWITCH, "true").strip().lower() in _OFF:
        return
    if not os.environ.get(FOLDER):
        try:
            folder = _usable(default_folder())
        except (OSError, RuntimeError):  # no home, or one that cannot be written to
            return
        if folder is None:
            return
        _set({FOLDER: str(folder)})
    _set({name: value for name, value in SETTINGS.items() if name not in os.environ})
    _report_once(os.environ[FOLDER])


def default_folder() -> Path:
    """The user's folder for programs of this processor.

    XLA's programs for a CPU use its instructions, and older versions of JAX do not ask which they
    are when they load one: a home that several machines share needs a folder for each kind.

    Raises:
        RuntimeError: the user has no home.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    root = given if given.is_absolute() else Path("~/.cache").expanduser()
    return root / "phenaki" / "programs" / _processor()


def _processor() -> str:
    """8 hex digits of the processor's kind and instructions."""
    facts = f"{platform.machine()} {platform.processor()}"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", info.read_text(), re.MULTILINE))
        facts += "".join(fields.get(name, "") for name in ("model name", "flags", "Features"))
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


def _usable(folder: Path) -> Path | None:
    """`folder`, made where it is missing; None where nothing should be stored in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # programs in it are run
    if not os.access(folder, os.W_OK | os.X_OK) or shutil.disk_usage(folder).free < LEAST_FREE:
        return None
    _shrink(folder.parent, LARGEST)
    return folder


def _shrink(root: Path, most: int) -> None:
    """Removes the files that were not used for longest until `most` bytes remain."""
    used = []
    for file in root.rglob("*"):
        try:
            stat = file.lstat()
        except OSError:  # another process removes it, too
            continue
        if file.is_file():
            used.append((max(stat.st_atime, stat.st_mtime), stat.st_size, file))
    total = sum(size for _, size, _ in used)
    for _, size, file in sorted(used):
        if total <= most:
            return
        file.unlink(missing_ok=True)
        total -= size


def _set(values: Mapping[str, str]) -> None:
    """Sets variables that JAX reads when it is imported, and its config where it has been."""
    os.environ.update(values)
    if "jax" in sys.modules:
        import jax

        for name, value in values.items():
            known = getattr(jax.config, name.lower())
            jax.config.update(name.lower(), float(value) if isinstance(known, float) else value)


def _report_once(folder: str) -> None:
    """Makes JAX's warning for each program that cannot be read or stored one line in all.

    A file that cannot be read, because a full disk or a kill cut it short, is removed instead: JAX
    would keep it, and compile its program at every start.
    """
    show, told = warnings.showwarning, False

    def report(message, category, filename, lineno, file=None, line=None):
        nonlocal told
        found = re.match(_ERROR, str(message))
        if found is None:
            show(message, category, filename, lineno, file, line)
            return
        action, program = found.groups()
        if told or (action == "reading" and _remove(folder, program)):
            return
        told = True
        logging.warning(
            "%s: compiled programs cannot be stored (%s); %s=false switches this off.",
            folder, str(message).partition(": ")[2], SWITCH,
        )  # fmt: skip

    warnings.showwarning = report
    warnings.filterwarnings("always", message=_ERROR)


def _remove(folder: str, program: str) -> bool:
    """Removes the files of the programs of that name; whether there was one."""
    files = [] if "://" in folder else list(Path(folder).glob(f"{program}-*-cache"))
    for file in files:
        file.unlink(missing_ok=True)
    return bool(files)
