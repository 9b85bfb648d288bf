"""The hidden working directory of a run, from which it resumes and moves the finished data set."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from phenaki.errors import UserError


@contextlib.contextmanager
def claim(target: Path, source: Path | str, overwrite: bool) -> Iterator[Path]:
    """Locks and yields the working directory of the output `target`, for a run over `source`.

    Raises:
        UserError: `target` cannot be written, or another run is writing it.
    """
    output, resolved = target.absolute(), Path(source).resolve()
    if output.resolve() == resolved or resolved in output.resolve().parents:
        raise UserError(f"{target}: must not lie inside the input {source}.")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise UserError(f"{target}: exists and is not empty; --overwrite replaces it.")
        if not (output / "features.json").is_file():
            raise UserError(f"{target}: not a data set; --overwrite does not replace it.")
    elif output.exists() and not output.is_dir():
        raise UserError(f"{target}: a file; the output is a directory.")
    partial = output.with_name(f".{output.name}.partial")
    try:
        (partial / "spool").mkdir(parents=True, exist_ok=True)
        lock = (partial / "lock").open("w")
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror}.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{target}: another run is writing it.") from None
        yield partial


def move(new: Path, output: Path) -> None:
    """Replaces the directory `output` by `new`."""
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    new.rename(output)
    shutil.rmtree(old, ignore_errors=True)
