"""Tables whose rows are segments of files: file, start, end, caption."""

import itertools
import os
from pathlib import Path, PurePosixPath

from phenaki.data.prepare import caption_tables, segment_columns, segment_times
from phenaki.data.prepare.items import Inventory, Skipped, escapes, split_named
from phenaki.data.prepare.layouts import walk
from phenaki.data.prepare.layouts.media_index import Collector, Row, captions, split_in
from phenaki.data.prepare.segment_columns import SegmentColumns
from phenaki.errors import UserError

FILE = (
    *caption_tables.FILE,
    "video_id",
    "videoid",
    "video_name",
    "vid",
    "youtube_id",
    "ytid",
    "id",
)
CAPTION = tuple(
    dict.fromkeys(
        (
            *caption_tables.CAPTION,
            "sentence",
            "sentences",
            "captions",
            "narration",
            "query",
            "label",
        )
    )
)
SPLIT = ("split", "subset")


def find(request: walk.Request, found: walk.Listing, table: Path) -> Inventory | None:
    """The segments of the rows of `table`; None if it has no columns of times.

    Rows with equal times are one segment with several captions. A row without times is its
    complete file.

    Raises:
        UserError: no column for the file or the caption, or no row names a file.
    """
    sample = [
        row for _, row in itertools.islice(caption_tables.rows(table), segment_columns.SAMPLE)
    ]
    columns = segment_columns.find(table, sample, request.fields)
    if columns is None:
        return None
    names = _Names(request, table, sample[0])
    collector = Collector(found)
    if table.suffix.lower() in (".csv", ".tsv") and caption_tables.encoding(table) == "latin-1":
        collector.problems.append(Skipped(table.name, "not UTF-8; read as Latin-1"))
    rows = 0
    for line, row in caption_tables.rows(table):
        rows += 1
        for made in _of_row(row, columns, names, collector, request.root):
            if isinstance(made, Row):
                collector.add(made, table.name)
            else:
                collector.problems.append(Skipped(made.name, f"{table.name}:{line}: {made.reason}"))
    if not len(collector):
        first = next(iter([*collector.missing(), *(p.name for p in collector.problems)]), "none")
        raise UserError(
            f"{table}: none of its {rows} rows names a segment of a video below {request.root} "
            f"(the first: {first!r})."
        )
    found.others -= {table.name} if table.parent == request.root else set()
    return collector.inventory(f"captions file {table.name}, {columns}")


class _Names:
    """The columns of the file, the captions and the split."""

    def __init__(self, request: walk.Request, table: Path, row: dict[str, str]):
        def column(field: str, usual: tuple[str, ...]) -> str | None:
            wanted = request.fields.get(field)
            return caption_tables.column(row, (wanted.lower(),) if wanted else usual)

        file, caption = column("file", FILE), column("caption", CAPTION)
        if file is None or caption is None:
            header = ",".join(name for name in row if name != caption_tables.OVERFLOW)[:80]
            raise UserError(
                f"{table}: header is {header!r}; it must have file and caption "
                "(or name the columns: --fields=file=NAME,caption=NAME)."
            )
        self.file, self.caption, self.split = file, caption, column("split", SPLIT)


def _of_row(
    row: dict[str, str], columns: SegmentColumns, names: _Names, collector: Collector, root: Path
) -> list[Row | Skipped]:
    """A row per segment: captions of equal number go with the segments one by one."""
    name = row[names.file].strip()
    if caption_tables.OVERFLOW in row:
        return [Skipped(name, "too many cells; quote the caption")]
    if escapes(name) and not Path(name).is_relative_to(root):
        return [Skipped(name, "its path escapes the folder")]
    try:
        segments = columns.of(row)
    except ValueError as error:
        return [Skipped(f"{name}#{_shown(columns, row)}", str(error))]
    texts = captions(segment_times.literal(row[names.caption]))
    split = split_named(row.get(names.split or "")) or split_in(row.get(names.split or "", ""))
    path = Path(name)
    inside = path.relative_to(root) if path.is_absolute() else path
    place = PurePosixPath(os.path.normpath(inside or ".")).as_posix()
    each = (
        [(text,) for text in texts] if len(texts) == len(segments) > 1 else [texts] * len(segments)
    )
    made: list[Row | Skipped] = []
    for segment, own in zip(segments, each, strict=True):
        is_cut = segment is not None and segment_columns.cut_already(name, segment)
        taken = None if is_cut else segment
        made.append(Row((place, name), own, split, taken, nsfw=row.get("nsfw") or None))
    return made


def _shown(columns: SegmentColumns, row: dict[str, str]) -> str:
    cells = (row.get(name or "") for name in (columns.start, columns.end, columns.duration))
    return "-".join(cell for cell in cells if cell is not None) or str(row.get(columns.pairs or ""))
