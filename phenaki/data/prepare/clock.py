"""For how long each decoded frame is shown, from the time stamps that its container stores.

Frames keep the order of their decoder, which is that of display. Stamps may be missing, invented,
or begin anew where files were joined.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

Frame = TypeVar("Frame")

AHEAD = 6  # frames by which invented stamps have contradicted the order of the frames
HELD = 16  # frames without stamps that wait for the next stamp; bounds the memory
RECENT = 50  # frames whose most usual time is that of the last ones, if these have none
UNKNOWN = Fraction(1, 25)  # seconds of a frame if nothing tells


class Stamps(NamedTuple):
    """Time stamps of a frame in ticks, as far as they are known: for display and for decoding.

    `lasts` is its stored duration in seconds.
    """

    presented: int | None
    decoded: int | None
    lasts: Fraction | None


def durations(
    frames: Iterator[tuple[Stamps, Frame]],
    tick: Fraction,
    max_gap: Fraction,
    usual: Fraction | None = None,
) -> Iterator[tuple[Fraction, Frame]]:
    """Yields for each frame the seconds until the next one, and the frame.

    Frames without stamps between two others divide the time between those. Where the clock goes
    back, stops or jumps by more than `max_gap`, it is taken to continue: the frame lasts as
    long as its container says, or its stream's `usual` frame, or the frames before. The last
    frames of a container that has no stamps for them last as long as most others.
    """
    first = list(itertools.islice(frames, AHEAD))
    clock, share = _Clock(stamps for stamps, _ in first), None
    gaps: collections.deque[Fraction] = collections.deque(maxlen=RECENT)
    every = itertools.chain(first, frames)
    del first  # frames are large
    held: list[tuple[Stamps, Frame]] = []  # the last frame with a stamp, and those after it
    for stamps, frame in every:
        which = clock.chosen(stamps)
        if held and (which is not None or len(held) == HELD):
            lasts = _between(held[0][0], stamps, which, tick, max_gap * len(held))
            if lasts is not None:
                share = lasts / len(held) if len(held) > 1 else lasts
                gaps.append(share)
            for one, waiting in held:
                seconds = share if lasts is not None else one.lasts or usual or share
                yield seconds or UNKNOWN, waiting
            held.clear()
        held.append((stamps, frame))
    most = max(gaps, key=gaps.count) if gaps and len(held) > 1 else None
    for one, waiting in held:
        yield most or one.lasts or usual or share or UNKNOWN, waiting


def _between(
    first: Stamps, last: Stamps, which: int | None, tick: Fraction, most: Fraction
) -> Fraction | None:
    if which is None:
        return None
    begin, end = first[:2][which], last[:2][which]
    if begin is None or end is None:
        return None
    seconds = (end - begin) * tick
    return seconds if 0 < seconds <= most else None


class _Clock:
    """Chooses between the two stamps of frames, as FFmpeg's best effort does.

    It is that of display, unless it has contradicted the order of the frames more often.

    Args:
        first: the stamps of the first frames, from which to know that from the beginning.
    """

    def __init__(self, first: Iterable[Stamps]) -> None:
        self._last: list[int | None] = [None, None]
        self._faults, self._counted = [0, 0], [0, 0]
        for stamps in first:
            self._count(stamps)
        self._last = [None, None]

    def chosen(self, stamps: Stamps) -> int | None:
        """0 for the stamp of display, 1 for that of decoding, None for neither."""
        self._count(stamps)
        decoded = self._counted[1] and self._faults[0] > self._faults[1]
        which = int(decoded or stamps.presented is None)
        return None if stamps[which] is None else which

    def _count(self, stamps: Stamps) -> None:
        for which, ticks in enumerate(stamps[:2]):
            last = self._last[which]
            if ticks is not None:
                self._counted[which] += 1
                self._faults[which] += last is not None and ticks <= last
                self._last[which] = ticks
