"""The hidden working directory of a run, from which it resumes and publishes the finished set."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from phenaki.data.prepare import publish
from phenaki.errors import UserError
from phenaki.io import outputs, paths
from phenaki.io.paths import AnyPath


def admit(
    target: AnyPath, source: AnyPath | str, overwrite: bool, captions: str | None = None
) -> None:
    """Checks the output `target` of a run over `source`; writes nothing.

    Raises:
        UserError: `target` has something else or a data set, or contains an input or lies in it.
    """
    inputs = [("input", None if f"{source}".startswith("tfds:") else source)]
    outputs.admit("output", target, "data set", [*inputs, ("captions", captions)])
    if publish.is_complete(target, paths.names(target)) and not overwrite:
        raise UserError(f"{target}: exists and is not empty; --overwrite replaces it.")


@contextlib.contextmanager
def claim(target: Path) -> Iterator[Path]:
    """Yields the working directory of the output `target`, for a run that has it for itself.

    Raises:
        UserError: it cannot be written, or another run is writing it.
    """
    output = target.resolve()  # next to the folder itself: a link may lead to another disk
    partial = output.with_name(f".{output.name}.partial")
    try:
        with outputs.claimed("output", partial, "preparation"):
            (partial / "spool").mkdir(exist_ok=True)
            yield partial
    except UserError as error:
        raise UserError(str(error).replace(f"--output={partial}", f"--output={target}")) from error
