"""Contact sheet of a data set, read back from its shards: frames, captions and sources."""

import bisect
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from phenaki.data import format, records, tensorflow
from phenaki.io.contact_sheet import font
from phenaki.io.paths import PathLike

THUMBNAIL = 96  # pixels
FRAMES = 6
ROWS = 40
TEXT_WIDTH = 380
MARGIN = 6


def choose(
    splits: Mapping[str, Sequence[tuple[int, int]]], rows: int = ROWS
) -> list[tuple[str, int]]:
    """Chooses (split, record) of up to `rows` clips, from as many source files as possible.

    Args:
        splits: for each source file of a split, (its first record there, number of records).
    """
    names = sorted(splits)
    ends = list(itertools.accumulate(len(splits[name]) for name in names))
    if not ends or not ends[-1]:
        return []
    each = max(1, rows // ends[-1])
    chosen = []
    for index in spread(ends[-1], rows):
        place = bisect.bisect_right(ends, index)
        of_split = splits[names[place]]
        first, count = of_split[index - ends[place] + len(of_split)]
        chosen += [(names[place], first + offset) for offset in spread(count, each)]
    return sorted(chosen)


def spread(length: int, count: int) -> list[int]:
    """Up to `count` indices in 0 .. length - 1, evenly spaced."""
    count = min(length, count)
    return [(2 * index + 1) * length // (2 * count) for index in range(count)]


def write(directory: PathLike, path: Path | io.BytesIO, chosen: list[tuple[str, int]]) -> None:
    """Writes a PNG with the clips `chosen`, each a (split, record), one per row."""
    data, form = format.open_set(directory)
    stored = {split: records.Records(data.info.splits[split].filepaths) for split, _ in chosen}
    clips = [(split, parse(stored[split][index])) for split, index in chosen]
    scale = THUMBNAIL / min(form.height, form.width)
    size = round(form.width * scale), round(form.height * scale)
    row = size[1] + MARGIN
    sheet = Image.new(
        "RGB", (FRAMES * (size[0] + 2) + TEXT_WIDTH, row * len(clips) + MARGIN), "white"
    )
    draw, letters = ImageDraw.Draw(sheet), font(11)
    for number, (name, clip) in enumerate(clips):
        top = MARGIN + number * row
        count = min(FRAMES, len(clip["video"]))
        for column, index in enumerate(np.linspace(0, len(clip["video"]) - 1, count).round()):
            frame = Image.open(io.BytesIO(clip["video"][int(index)]))
            small = frame.resize(size, Image.Resampling.BICUBIC)
            sheet.paste(small, (column * (size[0] + 2), top))
        left = FRAMES * (size[0] + 2) + MARGIN
        draw.multiline_text((left, top), _text(name, clip), "black", letters)
    sheet.save(path, "PNG")


def parse(record: bytes) -> dict:
    """The fields of a record as Python values."""
    fields = tensorflow.tensorflow().train.Example.FromString(record).features.feature
    return {
        "key": fields["key"].bytes_list.value[0].decode(errors="replace"),
        "video": list(fields["video"].bytes_list.value),
        "caption": fields["caption"].bytes_list.value[0].decode(errors="replace"),
        "captioned": bool(fields["captioned"].int64_list.value[0]),
        "source": fields["source"].bytes_list.value[0].decode(errors="replace"),
        "start": fields["start"].float_list.value[0],
        "fps": fields["fps"].float_list.value[0],
        # Absent in data sets of older releases.
        "source_fps": next(iter(fields["source_fps"].float_list.value), 0.0),
        "more_captions": [
            text.decode(errors="replace") for text in fields["more_captions"].bytes_list.value
        ],
    }


def _text(split: str, clip: dict) -> str:
    caption = clip["caption"] if clip["captioned"] else "(no caption)"
    if clip["more_captions"]:
        caption = f"(1 of {1 + len(clip['more_captions'])}) {caption}"
    lines = textwrap.wrap(caption, 58, max_lines=3)
    source = textwrap.shorten(clip["source"].replace("/", "/ "), 58).replace("/ ", "/")
    count = len(clip["video"])
    when = f"{clip['start']:.2f} s, {count} frames at {clip['fps']:g} fps" if count > 1 else "image"
    return "\n".join([*lines, source, f"{split}: {when}"])
