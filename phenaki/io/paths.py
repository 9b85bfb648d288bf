"""Paths of users: of this machine, or gs://BUCKET/NAME in a bucket of Google Cloud Storage.

A local path is a `pathlib.Path`. One in a bucket is an `epath.Path`, which goes by TensorFlow; it
repeats requests that a bucket refuses for a while, for minutes. A bucket has objects only: a folder
is a common beginning of names, nothing is renamed at once, and an object is written as a whole.
"""

import concurrent.futures
import contextlib
import functools
import importlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from etils import epath

from phenaki.errors import UserError
from phenaki.io.quiet import quiet

AnyPath: TypeAlias = Path | epath.Path
PathLike: TypeAlias = str | os.PathLike[str]
REMOTE = "gs://"
_LOADING = threading.RLock()
THREADS = 16  # objects that are copied at a time
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/+)(.*)", re.DOTALL)
# Addresses that web pages and other tools show for gs://BUCKET/NAME.
_PAGES = re.compile(
    r"https?://(storage\.googleapis\.com|storage\.cloud\.google\.com"
    r"|console\.cloud\.google\.com/storage/browser)/(?P<name>.+)"
)


def path(given: PathLike) -> AnyPath:
    """`given` as a path: of this machine, or in a bucket.

    Raises:
        UserError: an address of another kind, or one that is misspelt.
    """
    text = os.fspath(given)
    if (match := _ADDRESS.fullmatch(text)) is None:
        # As a shell does, which leaves it alone in --output=~/runs.
        return Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)
    scheme, slashes, rest = match.groups()
    if text.startswith(REMOTE) and len(slashes) == 2 and rest:
        load()
        return epath.Path(text)
    raise UserError(
        f"{text}: must be a path of this machine or {REMOTE}BUCKET/NAME; "
        f"{_nearest(text, scheme.lower(), rest)}."
    )


@functools.cache
def load() -> None:
    """Imports what `epath` would import with the first request."""
    with _LOADING:  # the first calls may be those of several threads
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        # Other hosts write, too, and a folder that was removed would be seen for seconds.
        os.environ.setdefault("GCS_STAT_CACHE_MAX_AGE", "0")
        # TensorFlow imports all of Keras, a third of its time, unless told that it is to be the
        # former one, which is not there; asked for later, `tf.keras` is Keras all the same.
        former = os.environ.get("TF_USE_LEGACY_KERAS")
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        try:
            with quiet():
                importlib.import_module("tensorflow")
        finally:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
            if former is not None:
                os.environ["TF_USE_LEGACY_KERAS"] = former


def _nearest(text: str, scheme: str, rest: str) -> str:
    if page := _PAGES.fullmatch(text):
        return f"nearest is {REMOTE}{page['name']}"
    if scheme in ("gs", "gcs"):
        return f"nearest is {REMOTE}{rest or 'BUCKET/NAME'}"
    if scheme == "file":
        return f"nearest is /{rest}"
    return f"copy it to {REMOTE} or mount it; a local folder of that name is ./{scheme}:/{rest}"


def local_path(flag: str, given: PathLike) -> Path:
    """`given` as a path of this machine, where a program can work with no other.

    Raises:
        UserError: it is in a bucket.
    """
    found = path(given)
    if not isinstance(found, Path):
        raise UserError(
            f"--{flag}={given}: must be a path of this machine, such as {found.name}; copy it "
            "to the bucket afterwards."
        )
    return found


def is_remote(given: PathLike) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(given).startswith(REMOTE)


def absolute(given: PathLike) -> AnyPath:
    """`given` without links and "..", as Orbax needs it; a path in a bucket as it is."""
    found = path(given)
    return found if is_remote(found) else found.resolve()


def size(given: PathLike) -> int:
    """Bytes of a file; -1 if there is none."""
    found = path(given)
    if not is_remote(found):
        return os.stat(found).st_size if os.path.isfile(found) else -1
    try:
        stat: Any = found.stat()
    except FileNotFoundError:
        return -1
    return -1 if stat.is_directory else stat.length


def is_file(given: PathLike) -> bool:
    """Whether there is a file; in a bucket `Path.is_file` asks whether there is anything."""
    return size(given) >= 0


def names(directory: PathLike) -> list[str]:
    """The names in a folder, ascending; [] where there is none."""
    found = path(directory)
    return sorted(one.name for one in found.iterdir()) if found.is_dir() else []


def remove_tree(directory: PathLike) -> None:
    """Removes a folder and all in it, where there is one."""
    found = path(directory)
    if isinstance(found, Path):
        shutil.rmtree(found, ignore_errors=True)
    elif found.is_dir():
        found.rmtree(missing_ok=True)


@contextlib.contextmanager
def local(given: PathLike) -> Iterator[Path]:
    """Yields a file on this machine with the content of `given`: itself, or a temporary copy.

    Raises:
        FileNotFoundError: there is none in the bucket.
    """
    found = path(given)
    if isinstance(found, Path):
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="phenaki-") as folder:
        copied = Path(folder, found.name)
        found.copy(copied)
        yield copied


@contextlib.contextmanager
def written(given: PathLike) -> Iterator[Path]:
    """Yields where to write the file `given`: itself, or a temporary file that is then uploaded."""
    found = path(given)
    if isinstance(found, Path):
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="phenaki-") as folder:
        partial = Path(folder, found.name)
        yield partial
        upload(partial, found)


def upload(file: Path, target: epath.Path) -> None:
    """Writes a local file as one object, which readers see when it is complete, replacing any."""
    # Never through a temporary name: a bucket would copy the object to rename it.
    epath.Path(file).copy(target, overwrite=True)


def in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """[function(item) for item in items], `THREADS` at a time, for requests to a bucket."""
    with concurrent.futures.ThreadPoolExecutor(THREADS, "bucket") as pool:
        return list(pool.map(function, items))
