"""Tables with captions of files, or of segments of files: file, start, end, caption."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import caption_tables, captions, segment_columns, segment_times
from phenaki.data.prepare.items import Inventory, Skipped
from phenaki.data.prepare.layouts import table as tables
from phenaki.data.prepare.layouts import walk
from phenaki.data.prepare.layouts.media_index import Collector, Row
from phenaki.data.prepare.segment_columns import SegmentColumns
from phenaki.errors import UserError

IDS = ("video_id", "videoid", "video_name", "vid", "youtube_id", "youtubeid", "ytid", "id")
TEXTS = ("narration", "query", "sentences", "utterance", "transcript", "label", "action")


def find_table(request: walk.Request, found: walk.Listing) -> Inventory | None:
    """As `table.find_table`; rows of tables with columns of times are segments of their files.

    Rows with equal times are one segment with several captions. A row without times is its
    complete file. Files may be named by their ids: the name without suffix, in any folder.
    """
    collector = Collector(found)
    paths = tables.captions_files(request, found) or _with_ids(request, found, collector)
    segments = {path: _segments(path, request) for path in paths}
    if not any(segments.values()) and not any(_has_ids(path, request) for path in paths):
        return tables.find_table(request, found)
    reader = _SegmentReader(request, found, collector=collector)
    for path, columns in segments.items():
        reader.read_segments(path, columns)
    collector.problems += reader.problems
    what = "segments of captions file" if any(segments.values()) else "captions file"
    layout = f"{what} {', '.join(path.name for path in paths)}"
    return collector.inventory(layout, reader.notes)


def _segments(path: Path, request: walk.Request) -> SegmentColumns | None:
    return segment_columns.find(path, _sample(path), request.fields)


def _sample(path: Path) -> list[dict[str, str]]:
    rows = itertools.islice(caption_tables.rows(path), segment_columns.SAMPLE)
    return [row for _, row in rows]


def _with_ids(request: walk.Request, found: walk.Listing, collector: Collector) -> list[Path]:
    """Tables of any name with captions or segments of files that they name by ids."""
    paths = []
    for key in found.tables()[: tables.MAX_GUESSED]:
        path = request.root / key
        with contextlib.suppress(UserError):
            sample = _sample(path)
            first = next(iter(sample), {})
            name = caption_tables.column(first, (*caption_tables.FILE, *IDS))
            columns = segment_columns.find(path, sample, request.fields) if name else None
            text = caption_tables.column(first, (*caption_tables.CAPTION, *TEXTS))
            if not name or not (columns or text):
                continue
            if columns is None and name == "id" and text not in caption_tables.CAPTION:
                continue  # of classes rather than of files
            cuts = segment_columns.CutFiles(found.media if columns else ())
            names = ((row.get(name, ""), row) for _, row in caption_tables.rows(path))
            if any(collector.key((own,)) or cuts.key(own, row, columns) for own, row in names):
                paths.append(path)
    return paths


def _has_ids(path: Path, request: walk.Request) -> bool:
    """Whether a table names files by ids only."""
    row = next(iter(_sample(path)), {})
    named = "file" in request.fields or caption_tables.column(row, caption_tables.FILE)
    return not named and caption_tables.column(row, IDS) is not None


def _names(path: Path, request: walk.Request, columns: SegmentColumns | None) -> dict[str, str]:
    """--fields with the columns of the file and the caption, where their usual names are absent."""
    fields, row = dict(request.fields), next(iter(_sample(path)), {})
    for field, usual, more in (
        ("file", caption_tables.FILE, IDS),
        ("caption", caption_tables.CAPTION, TEXTS),
    ):
        name = None if caption_tables.column(row, usual) else caption_tables.column(row, more)
        if name:
            fields.setdefault(field, name)
    if columns and columns.pairs and segment_columns.objects(row.get(columns.pairs)):
        fields.setdefault("caption", columns.pairs)
    return fields


@dataclasses.dataclass
class _SegmentReader(tables.TableReader):
    """Collects the rows of tables by file and segment."""

    collector: Collector = dataclasses.field(kw_only=True)
    columns: SegmentColumns | None = None

    def read_segments(self, path: Path, columns: SegmentColumns | None) -> None:
        self.columns, request = columns, self.request
        key = tables.key_of(path, request.root)
        self.found.others.discard(key)
        if columns:
            self.notes.append(f"{path.name}: {columns}")
        self.request = dataclasses.replace(request, fields=_names(path, request, columns))
        self.read(path)
        self.request = request

    def unread_times(self, row: Mapping[str, str]) -> list[str]:
        return [] if self.columns else super().unread_times(row)

    @functools.cached_property
    def _cuts(self) -> segment_columns.CutFiles:
        return segment_columns.CutFiles(self.found.media)

    def find(self, name: str, place: PurePosixPath, row: Mapping[str, str]) -> str | None:
        found = super().find(name, place, row) or self.collector.key((name,), str(place / "table"))
        return found or self._cuts.key(name, row, self.columns)

    def why_not(self, name: str, place: PurePosixPath) -> str:
        reason = self.collector.why_not(name)
        return super().why_not(name, place) if reason == walk.NO_FILE else reason

    def add(self, key: str, row: dict[str, str], columns: list[str], table: Path) -> Iterator[str]:
        if fault := caption_tables.fault(row):
            yield fault
            return
        try:
            segments = self.columns.of(row) if self.columns else [None]
            texts = _captions([row.get(column, "") for column in columns], len(segments))
        except ValueError as error:
            name = f"{key}#{self.columns.shown(row)}" if self.columns else key
            self.problems.append(Skipped(name, f"{table.name}: {error}"))
            return
        for segment, own in zip(segments, texts, strict=True):
            is_cut = segment is not None and segment_columns.cut_already(key, segment)
            flag, split = captions.flag_of(row), self.split(key, row, table)
            part = Row((key,), own, split, None if is_cut else segment, nsfw=flag)
            self.collector.add(part, table.name)


def _captions(cells: list[str], segments: int) -> list[tuple[str, ...]]:
    """The captions of each segment: a list of as many goes with them one by one.

    Raises:
        ValueError: a list of another number.
    """
    listed = segment_times.literal(cells[0]) if len(cells) == 1 else None
    if segments > 1 and isinstance(listed, list) and len(listed) != 1:
        if len(listed) != segments:
            raise ValueError(f"{segments} segments and {len(listed)} captions")
        return [captions.of(text) for text in listed]
    return [tuple(dict.fromkeys(text for cell in cells for text in captions.of(cell)))] * segments
