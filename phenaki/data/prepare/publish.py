"""Puts a finished data set where it belongs: on a local disk or in a bucket, file by file.

Of what is there only the files that the data set's own manifest lists are replaced or removed.
features.json goes first and comes last: without it there is no data set, and half of two is none.
"""

import os
import shutil
from pathlib import Path

from phenaki.data.prepare import manifest, report
from phenaki.errors import UserError
from phenaki.io import artifacts, outputs, paths
from phenaki.io.paths import AnyPath

FEATURES = "features.json"
SHEET = "contact_sheet.png"
UPLOADING = ".uploading"  # in the output meanwhile: the names that are replaced and written
# What a data set has besides the files that its manifest lists.
UNLISTED = (manifest.NAME, f"{report.REPORT}.txt", f"{report.REPORT}.json", SHEET)


def is_complete(output: AnyPath, names: list[str]) -> bool:
    """Whether a folder with these names has a data set; not if it is just being put there."""
    return FEATURES in names and UPLOADING not in names


def publish(folder: Path, output: AnyPath) -> None:
    """Moves the files of the data set `folder` to `output`, instead of the data set there.

    Raises:
        UserError: `output` has another file of such a name.
    """
    if isinstance(output, Path) and not output.exists():
        folder.rename(output)
        return
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    there = paths.names(output)
    own = set(_own(output, there))
    for name in names:
        if name in there and name not in own:
            raise UserError(
                f"{output / name}: exists, and is not of the data set there; move it, or give "
                "another --output."
            )
    artifacts.write_json(output / UPLOADING, {"files": sorted(own | set(names))})
    (output / FEATURES).unlink(missing_ok=True)
    old = sorted(own.intersection(there).difference(names, [FEATURES]))
    paths.in_threads(lambda name: (output / name).unlink(missing_ok=True), old)
    paths.in_threads(
        lambda name: _put(folder / name, output / name), [n for n in names if n != FEATURES]
    )
    _put(folder / FEATURES, output / FEATURES)
    (output / UPLOADING).unlink()


def _own(output: AnyPath, there: list[str]) -> list[str]:
    """The names of the data set in `output`, or of one that was being put there."""
    content: dict = {}
    for name in (UPLOADING, manifest.NAME):
        if name in there:
            content = artifacts.marked(output / name) or {}
            break
    files = [name for name in content.get("files", ()) if outputs.is_name(name)]
    return [*files, *UNLISTED] if content else []


def _put(file: Path, target: AnyPath) -> None:
    if not isinstance(target, Path):
        paths.upload(file, target)
        return
    try:
        os.replace(file, target)
    except OSError:  # another disk, mounted at the output
        with artifacts.atomic(target) as partial:
            shutil.copyfile(file, partial)
