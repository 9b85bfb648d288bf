"""Earlier takes of an output folder: moved to take_1, take_2, ... where a call writes another."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from phenaki.io import outputs, paths
from phenaki.io.paths import AnyPath


def keep(
    directory: AnyPath,
    files: Sequence[str],
    made: Mapping[str, Any],
    before: Mapping[str, Any] | None,
) -> AnyPath | None:
    """Moves the take in `directory` to the first free folder take_N, if it was made otherwise.

    Args:
        files: the names of a take's files; the last is the one that is written last.
        made: how the take is made that is written next, as JSON.
        before: how that in `directory` was made; None: it is not complete, and is replaced.

    Returns:
        The folder; None where nothing was moved.
    """
    there = [name for name in files if paths.is_file(directory / name)]
    if before is None or not there or before == json.loads(json.dumps(made)):
        return None
    number = 1
    while paths.is_file(directory / f"take_{number}" / files[-1]):
        number += 1
    # One without its last file is that of a call which was ended while it moved them.
    folder = directory / f"take_{number}"
    folder.mkdir(exist_ok=True)
    outputs.enlist(folder, there)
    for name in there:
        (directory / name).replace(folder / name)
    return folder
