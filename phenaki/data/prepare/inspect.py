"""Statistics of a prepared data set: lengths, rates, captions, sources, brightness, duplicates."""

import collections
import dataclasses
import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from phenaki.data import format, records
from phenaki.data.prepare import contact_sheet, video
from phenaki.io.paths import PathLike

DARK, BRIGHT = 16, 235  # limited range: full-range clips have pixels outside


@dataclasses.dataclass
class SplitStatistics:
    """Statistics of `seen` of the `stored` records; a list has an entry per record."""

    stored: int
    seen: int = 0
    frames: list[int] = dataclasses.field(default_factory=list)
    fps: list[float] = dataclasses.field(default_factory=list)
    source_fps: list[float] = dataclasses.field(default_factory=list)  # of clips; only where known
    tokens: list[int] = dataclasses.field(default_factory=list)  # per caption, with the end token
    brightness: list[float] = dataclasses.field(default_factory=list)  # mean level, 0 to 255
    lowest: list[int] = dataclasses.field(default_factory=list)
    highest: list[int] = dataclasses.field(default_factory=list)
    sources: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    equal: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (key, first key)
    uncaptioned: int = 0
    length: int = 0  # tokens after which training truncates a caption; 0 for none

    def warnings(self) -> list[str]:
        """Sentences on what may be wrong."""
        found = []
        if self.seen and min(self.lowest) >= DARK and max(self.highest) <= BRIGHT:
            found.append("no pixel outside 16 to 235: limited range may not have been expanded")
        if self.seen and np.std(self.brightness) == 0 and self.seen > 1:
            found.append("all clips are equally bright")
        dark = sum(value < DARK for value in self.brightness)
        if dark:
            found.append(f"{dark} clips are nearly black")
        if self.length and (cut := sum(value > self.length for value in self.tokens)):
            found.append(f"{cut} captions have more than {self.length} tokens and are truncated")
        if self.equal:
            found.append(f"{len(self.equal)} clips equal an earlier one")
        if self.fps and (
            slow := sum(rate < video.SLOW * max(self.fps) for rate in self.source_fps)
        ):
            rate = f"{max(self.fps):g} frames per second"
            found.append(f"{slow} clips are of sources slower than {rate}: their frames repeat")
        top = self.sources.most_common(1)
        if len(self.sources) > 1 and top[0][1] > self.seen / 2:
            found.append(f"more than half of the clips come from {top[0][0]}")
        return found


def measure(
    directory: PathLike,
    max_records: int,
    count_tokens: Callable[[str], int] | None = None,
    length: int = 0,
) -> dict[str, SplitStatistics]:
    """Reads up to `max_records` records of each split, evenly spaced.

    Args:
        count_tokens: number of tokens of a caption; by default UTF-8 bytes and an end, as in ByT5.
        length: tokens after which training truncates a caption; 0 for none.

    Raises:
        UserError: not a data set of clips.
    """
    data, _ = format.open_set(directory)
    first_of: dict[str, str] = {}
    found = {}
    for name, info in data.info.splits.items():
        stored = records.Records(info.filepaths, info.shard_lengths)
        split = found[name] = SplitStatistics(len(stored), length=length)
        for index in contact_sheet.spread(len(stored), max_records):
            _add(split, contact_sheet.parse(stored[index]), first_of, count_tokens or _bytes)
    return found


def _bytes(caption: str) -> int:
    return len(caption.encode()) + 1


def _add(split: SplitStatistics, clip: dict, first_of: dict[str, str], count_tokens) -> None:
    split.seen += 1
    split.frames.append(len(clip["video"]))
    split.fps.append(clip["fps"])
    if clip["source_fps"]:
        split.source_fps.append(clip["source_fps"])
    split.sources[clip["source"]] += 1
    if clip["captioned"]:
        split.tokens += map(count_tokens, [clip["caption"], *clip["more_captions"]])
    split.uncaptioned += not clip["captioned"]
    middle = clip["video"][len(clip["video"]) // 2]
    levels = np.asarray(Image.open(io.BytesIO(middle)))
    split.brightness.append(float(levels.mean()))
    split.lowest.append(int(levels.min()))
    split.highest.append(int(levels.max()))
    digest = hashlib.sha256(b"".join(clip["video"])).hexdigest()
    if digest in first_of:
        split.equal.append((clip["key"], first_of[digest]))
    first_of.setdefault(digest, clip["key"])
