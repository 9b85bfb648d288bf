"""Detects published annotation files by their content and lists the videos that they describe."""

import csv
import functools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from phenaki.data.prepare import caption_tables, text_files
from phenaki.data.prepare.items import Inventory, Skipped
from phenaki.data.prepare.layouts import annotation_json, annotation_tables, walk
from phenaki.data.prepare.layouts.media_index import Collector, Format, Row, Sniff
from phenaki.errors import UserError

FORMATS: dict[str, Format] = annotation_json.FORMATS | annotation_tables.FORMATS
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet")
_HEAD = 2**16  # bytes that tell what a file holds
_NAMED = 3  # files that the layout's description names


def find(request: walk.Request, found: walk.Listing, only: str | None = None) -> Inventory | None:
    """The videos of the annotation files in the folder, or of the file or folder of --captions.

    Args:
        only: a name of `FORMATS`; by default all formats, several in one folder together.

    Raises:
        UserError: an annotation file is not readable, or none of its rows names a file.
    """
    formats = {only: FORMATS[only]} if only else FORMATS
    files = [
        (key, path, name)
        for key, path in _candidates(request, found)
        if (name := next((name for name, f in formats.items() if f.matches(_sniff(path))), None))
    ]
    if not files:
        return None
    collector = Collector(found)
    if any(name == "charades-sta" for *_, name in files):
        files, left = [f for f in files if f[2] != "charades"], files
        collector.problems += [
            Skipped(key, "descriptions of complete videos: not used next to Charades-STA's")
            for key, _, name in left
            if name == "charades"
        ]
        found.others -= {key for key, *_ in left}
    rows = 0
    for key, path, name in files:
        place = PurePosixPath(key).parent
        found.others -= {key, *(str(place / other) for other in FORMATS[name].also)}
        rows += _collect(collector, FORMATS[name], key, path, request)
    if not len(collector):
        first = next(iter(collector.missing()), "none")
        raise UserError(
            f"{files[0][1]}: none of its {rows} rows names a video below {request.root} "
            f"(the first: {first!r}); --layout=none reads the videos without captions."
        )
    return collector.inventory(_description(files, collector))


READERS = {name: functools.partial(find, only=name) for name in FORMATS}


def _candidates(request: walk.Request, found: walk.Listing) -> Iterator[tuple[str, Path]]:
    """Files that may be annotations: not those next to a file of their name."""
    if request.captions:
        places = [Path(request.captions), request.root / request.captions]
        place = next((place for place in places if place.exists()), places[0])
        root = request.root.resolve()
        for file in sorted(place.iterdir()) if place.is_dir() else [place]:
            full = file.resolve()
            if file.is_file():
                inside = full.is_relative_to(root)
                yield full.relative_to(root).as_posix() if inside else file.name, file
        return
    media = {PurePosixPath(key).with_suffix("").as_posix() for key in found.media}
    for key in sorted(found.others):
        path = PurePosixPath(key)
        if path.suffix.lower() in _SUFFIXES and path.with_suffix("").as_posix() not in media:
            yield key, request.root / key


def _sniff(path: Path) -> Sniff:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return Sniff(path.name, suffix, "", _parquet_columns(path))
    try:
        head = text_files.head(path, _HEAD).lstrip()
    except OSError:
        head = ""
    if suffix in (".json", ".jsonl"):
        names = re.findall(r'"((?:[^"\\]|\\.)*)"\s*:', head)
    else:
        first = re.split(r"[\r\n]", head, maxsplit=1)[0]
        cells = csv.reader([first], delimiter="\t" if suffix == ".tsv" else ",")
        names = next(cells, []) if suffix in (".csv", ".tsv") else []
    return Sniff(path.name, suffix, head, frozenset(name.strip().lower() for name in names))


def _parquet_columns(path: Path) -> frozenset[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        return frozenset(name.lower() for name in parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError, ValueError):
        return frozenset()


def _collect(
    collector: Collector, form: Format, key: str, path: Path, request: walk.Request
) -> int:
    """Adds the rows of a file; returns their number."""
    count = 0
    for name, entry in _entries(form, path):
        if isinstance(entry, dict) and (fault := caption_tables.fault(entry)):
            count += 1
            collector.problems.append(Skipped(name, f"{key}: {fault}"))
            continue
        try:
            for row in form.rows(name, entry, request.fields):
                count += 1
                if isinstance(row, Row):
                    collector.add(row, key)
                else:
                    collector.problems.append(Skipped(row.name, f"{key}: {row.reason}"))
        except KeyError as error:
            collector.problems.append(Skipped(name, f"{key}: its entry has no {error}"))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            text = str(error) if type(error) is ValueError else "an entry of another form"
            collector.problems.append(Skipped(name, f"{key}: {text}"))
    return count


def _entries(form: Format, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        yield from form.entries(path)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not as {form.title} is published: {error!r}.") from None


def _description(files: list[tuple[str, Path, str]], collector: Collector) -> str:
    titles = dict.fromkeys(FORMATS[name].title for *_, name in files)
    names = ", ".join(path.name for _, path, _ in files[:_NAMED])
    more = f" and {len(files) - _NAMED} more files" * (len(files) > _NAMED)
    how = "segments are cut" if collector.cuts else "files are taken as cut already"
    return f"{' and '.join(titles)}, {names}{more}; {how}"
