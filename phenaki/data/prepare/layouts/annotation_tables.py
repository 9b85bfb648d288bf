"""Annotation files of lines and columns: Charades, TGIF, HD-VILA, Panda-70M, InternVid, OpenVid."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from phenaki.data.prepare import caption_tables, captions, segment_times, text_files
from phenaki.data.prepare.items import Skipped, Split
from phenaki.data.prepare.layouts.media_index import Format, Row, Sniff, cut_out, split_in
from phenaki.errors import UserError

_STA = re.compile(r"(?P<video>\S+)\s+(?P<start>[\d.]+)\s+(?P<end>[\d.]+)\s*##(?P<text>.*)")
_GIF = re.compile(r"(?P<url>https?://\S+\.gif)\t(?P<text>.+)")
# Lists of urls by split, next to TGIF's table.
_LISTS = tuple(f"{top}{name}.txt" for top in ("", "splits/") for name in ("train", "val", "test"))


def _has(*names: str):
    return lambda sniff: set(names) <= sniff.names and sniff.suffix != ".json"


def _begins(pattern: re.Pattern):
    return lambda sniff: bool(pattern.match(sniff.head))


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding=text_files.encoding(path)) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path.name}:{number}", line.strip()
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror or error}.") from None


def _table(path: Path) -> Iterator[tuple[str, Any]]:
    for number, row in caption_tables.rows(path):
        yield f"{path.name}:{number}", row


def _charades_sta(name: str, line: str, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """3MSZA 24.3 30.4##person turn a light on."""
    found = _STA.fullmatch(line)
    if not found:
        raise ValueError("not VIDEO START END##sentence")
    row = Row((found["video"],), captions.of(found["text"]))
    yield cut_out(row, found["start"], found["end"])


def _charades(
    name: str, row: Mapping[str, str], fields: Mapping[str, str]
) -> Iterator[Row | Skipped]:
    """id, script, descriptions (several, with ; between): of the complete video."""
    texts = captions.of(row["descriptions"].split(";")) or captions.of(row["script"])
    yield Row((row["id"],), texts)


def _gifs(path: Path) -> Iterator[tuple[str, Any]]:
    """url, sentence and split: that of the list train.txt, val.txt or test.txt with the url."""
    splits: dict[str, Split | None] = {}
    for name in _LISTS:
        if (path.parent / name).is_file():
            urls = (line.partition("\t")[0] for _, line in _lines(path.parent / name))
            splits |= dict.fromkeys(urls, split_in(PurePosixPath(name).stem))
    for name, line in _lines(path):
        yield name, (line, splits.get(line.partition("\t")[0]))


def _tgif(name: str, entry: Any, fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    line, split = entry
    found = _GIF.fullmatch(line)
    if not found:
        raise ValueError("not URL, tab, sentence")
    yield Row((PurePosixPath(found["url"]).name,), captions.of(found["text"]), split)


def _hdvila(
    name: str, row: Mapping[str, str], fields: Mapping[str, str]
) -> Iterator[Row | Skipped]:
    """video_id, clip [{clip_id, span [start, end]}]: no captions; clips may be cut, by clip_id."""
    for clip in segment_times.literal(row["clip"]):
        (start, end), cut = clip["span"], clip.get("clip_id")
        yield cut_out(Row((row["video_id"],), cut=(cut,) if cut else ()), start, end)


def _panda(name: str, row: Mapping[str, str], fields: Mapping[str, str]) -> Iterator[Row | Skipped]:
    """videoID, timestamp and caption: lists of equal length, written as text; or one of each."""
    times, texts = (segment_times.literal(row[column]) for column in ("timestamp", "caption"))
    if isinstance(texts, str) and isinstance(times, list) and times and isinstance(times[0], str):
        times, texts = [times], [texts]  # a clip per row, as Koala-36M has it
    if not isinstance(times, list) or not isinstance(texts, list) or len(times) != len(texts):
        raise ValueError(f"{row['videoid']}: timestamp and caption are not lists of equal length")
    for (start, end), text in zip(times, texts, strict=True):
        yield cut_out(Row((row["videoid"],), captions.of(text)), start, end)


def _internvid(
    name: str, row: Mapping[str, str], fields: Mapping[str, str]
) -> Iterator[Row | Skipped]:
    """YoutubeID, Start_timestamp, End_timestamp, Caption; files ID, or cut ones ID_START_END."""
    video, start, end = (row[c] for c in ("youtubeid", "start_timestamp", "end_timestamp"))
    cut = (f"{video}_{start}_{end}",)
    yield cut_out(Row((video,), captions.of(row.get("caption")), cut=cut), start, end)


def _openvid(
    name: str, row: Mapping[str, str], fields: Mapping[str, str]
) -> Iterator[Row | Skipped]:
    """video, caption and scores: files that are cut."""
    yield Row((row["video"].strip(),), captions.of(row["caption"]))


def _is_hdvila(sniff: Sniff) -> bool:
    return sniff.suffix == ".jsonl" and {"video_id", "clip", "span"} <= sniff.names


FORMATS: dict[str, Format] = {
    "charades-sta": Format("Charades-STA", _begins(_STA), _lines, _charades_sta),
    "charades": Format("Charades", _has("id", "script", "descriptions"), _table, _charades),
    "tgif": Format("TGIF", _begins(_GIF), _gifs, _tgif, _LISTS),
    "hdvila": Format("HD-VILA", _is_hdvila, _table, _hdvila),
    "panda70m": Format("Panda-70M", _has("videoid", "timestamp", "caption"), _table, _panda),
    "internvid": Format(
        "InternVid", _has("youtubeid", "start_timestamp", "end_timestamp"), _table, _internvid
    ),
    "openvid": Format(
        "OpenVid", _has("video", "caption", "aesthetic score", "motion score"), _table, _openvid
    ),
}
