"""Preparation with input or output in a bucket: by way of a scratch folder on this machine.

Decoders seek and shards are checked again, so the input is copied first and the finished data set
is uploaded last, its features.json after all else: without it there is no data set.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from etils import epath

from phenaki.data.prepare import publish, report
from phenaki.data.prepare.items import Skipped
from phenaki.errors import UserError, bucket_reason
from phenaki.io import artifacts, owner, paths
from phenaki.io.paths import AnyPath

DONE = "prepared.json"  # of the scratch folder: the data set is complete, and of these arguments
PROBE = ".writable"


def is_needed(options: Any) -> bool:
    """Whether the input, the output or the captions of `options` are in a bucket."""
    return any(map(paths.is_remote, _addresses(options).values()))


def _addresses(options: Any) -> dict[str, str]:
    found = {name: getattr(options, name) for name in ("input", "output", "captions")}
    return {name: str(value) for name, value in found.items() if value}


def prepare(options: Any, locally: Callable[..., dict], progress: Any, runner: Any) -> dict:
    """As `run.prepare`, which is `locally`, for `run.PrepareOptions` with addresses of buckets.

    The scratch folder is one of `tempfile.gettempdir()` that depends on the addresses: the same
    command resumes there, also an upload.

    Raises:
        UserError: also where the bucket cannot be written, or the scratch folder has no room.
    """
    addresses = _addresses(options)
    digest = hashlib.sha256(json.dumps(addresses, sort_keys=True).encode()).hexdigest()[:12]
    scratch = Path(tempfile.gettempdir(), f"phenaki-{digest}")
    scratch.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(owner.owned(scratch, f"--output={options.output}"))
        if paths.is_remote(options.output):
            _check_writable(options.output)
            stack.enter_context(owner.owned(options.output, f"--output={options.output}"))
        summary = _by_way_of(scratch, options, addresses, locally, progress, runner)
    shutil.rmtree(scratch)
    return summary


def _by_way_of(scratch: Path, options: Any, addresses, locally, progress, runner) -> dict:
    copied: dict[str, Path] = {}
    lost: list[Skipped] = []
    for name in ("input", "captions"):
        if name in addresses and paths.is_remote(addresses[name]):
            copied[name] = _fetch(epath.Path(addresses[name]), scratch / name, lost)
    output = options.output
    if paths.is_remote(output):
        output = scratch / "output" / output.name
        copied["output"] = output
    places: dict[str, Any] = {k: str(v) if k == "captions" else v for k, v in copied.items()}
    local = dataclasses.replace(options, **places)
    key = {"options": repr(options), "input": _sizes(local.input)}
    if output is options.output or artifacts.marked(scratch / DONE) != key:
        shutil.rmtree(scratch / "output" / output.name, ignore_errors=True)
        (scratch / DONE).unlink(missing_ok=True)
        (scratch / "output").mkdir(exist_ok=True)
        summary = _prepared(locally, local, addresses, copied, progress, runner)
        report.add_problems(summary, lost, Path(output))
        report.save(summary, Path(output))
        if output is not options.output:
            artifacts.mark(scratch / DONE, key)
    else:
        summary = json.loads((output / f"{report.REPORT}.json").read_text(encoding="utf-8"))
    if output is not options.output:
        _upload(Path(output), epath.Path(options.output))
    return summary


def _prepared(locally, local, addresses, copied, progress, runner) -> dict:
    """The report of `locally`, with the user's addresses instead of those of the scratch folder."""
    try:
        summary = locally(local, progress, runner)
    except UserError as error:
        text = str(error)
        for name, place in copied.items():
            text = text.replace(str(place), addresses[name])
        raise UserError(text) from error
    return summary | {"options": summary["options"] | {name: addresses[name] for name in copied}}


def _sizes(folder: Path | str) -> list:
    root = Path(folder)
    if not root.is_dir():
        return [str(folder)]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    sizes = [(path.relative_to(root).as_posix(), path.stat().st_size) for path in files]
    return [len(files), hashlib.sha256(json.dumps(sizes).encode()).hexdigest()]


def _check_writable(output: AnyPath) -> None:
    """Raises `UserError` where nothing can be written."""
    try:
        artifacts.write_json(output / PROBE, {})
        (output / PROBE).unlink()
    except Exception as error:
        raise UserError(
            f"{output}: cannot be written: {bucket_reason(error) or error}. Check the name of the "
            "bucket and your permissions (gcloud auth application-default login)."
        ) from error


def _files(root: epath.Path) -> Iterator[tuple[str, int] | Skipped]:
    """(name below `root`, bytes) of every object, and those that no file can stand for."""
    folders = collections.deque([root])
    while folders:
        folder = folders.popleft()
        found = collections.Counter(folder.iterdir() if folder.is_dir() else ())
        if found.pop(folder, 0):  # listed as the folder's own name
            name = f"{folder.relative_to(root).as_posix()}//".removeprefix(".")
            yield Skipped(name, "objects with two slashes in a row: not read")
        inside = sorted(found)
        for path, size in zip(inside, paths.in_threads(paths.size, inside), strict=True):
            name, is_both = path.relative_to(root).as_posix(), found[path] > 1
            if size < 0 or is_both:
                folders.append(path)
            if is_both:
                yield Skipped(name, "an object with the name of a folder: not read")
            elif size >= 0:
                yield name, size


def _fetch(source: epath.Path, target: Path, lost: list[Skipped]) -> Path:
    """Copies a folder or file to the folder `target`, what is there already excepted.

    Adds to `lost` what cannot be copied.
    """
    whole = paths.size(source)
    found: list[tuple[str, int]]
    if whole >= 0:
        found, root, result = [(source.name, whole)], source.parent, target / source.name
    else:
        every = list(_files(source))
        lost += [one for one in every if isinstance(one, Skipped)]
        found = [one for one in every if not isinstance(one, Skipped)]
        root, target = source, target / source.name
        result = target
    if not found:
        raise UserError(f"{source}: no such folder or file, or an empty one.")
    missing = [
        (name, size) for name, size in found if size >= 0 and paths.size(target / name) != size
    ]
    _check_room(source, sum(size for _, size in missing), target)
    names = {name for name, _ in found}
    for path in [path for path in target.rglob("*") if path.is_file()] if whole < 0 else ():
        if path.relative_to(target).as_posix() not in names:
            path.unlink()  # of an earlier call; the bucket does not have it any more

    def copy(entry: tuple[str, int]) -> None:
        name, _ = entry
        place = target / name
        if ".." in PurePosixPath(name).parts:
            raise UserError(f"{source}/{name}: a name that leaves the folder.")
        place.parent.mkdir(parents=True, exist_ok=True)
        with artifacts.atomic(place) as partial:
            (root / name).copy(partial)

    paths.in_threads(copy, missing)
    return result


def _check_room(source: AnyPath, needed: int, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target).free
    # The clips use up to as much again, twice, until they are sharded.
    if needed > free:
        raise UserError(
            f"{source}: {needed / 1e9:.1f} GB are copied to {target} first, which has "
            f"{free / 1e9:.1f} GB free; set TMPDIR to a folder on a larger disk, or prepare the "
            "input in parts."
        )


def _upload(folder: Path, output: epath.Path) -> None:
    try:
        publish.publish(folder, output)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{output}: cannot be written: {bucket_reason(error) or error}. The data set is "
            f"complete in {folder}; the same command uploads it."
        ) from error
