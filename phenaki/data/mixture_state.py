"""What a run has read of each of its data sets, so that a change of them loses and repeats nothing.

A mixture takes its sets in a fixed pattern (`mixture`). Where a resumed run has other sets or other
rates, the pattern begins anew at that example, and each set continues after its own last example.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from phenaki.data import mixture
from phenaki.data.host_rows import HostRows
from phenaki.errors import UserError
from phenaki.io import paths

SETS = ("tfds", "codes")  # values of config.data.source that read data sets


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as a run reads it."""

    path: str
    rate: float
    records: int | None  # None: unknown, of a checkpoint of an earlier version
    index: int  # with the seed, it decides the order of the set
    taken: int = 0  # its examples before the mixture began


@dataclasses.dataclass(frozen=True)
class MixtureState:
    """A mixture, from example `since` of the job on; `past` are sources of mixtures before it."""

    since: int
    sources: tuple[Source, ...]
    past: tuple[Source, ...] = ()

    def taken(self, number: int, seed: int) -> list[int]:
        """How many examples of each source come before example `number` of the job."""
        pattern = mixture.pattern([source.rate for source in self.sources], seed)
        periods, rest = divmod(number - self.since, len(pattern))
        every, first = (
            np.bincount(part, minlength=len(self.sources)) for part in (pattern, pattern[:rest])
        )
        own = (periods * every + first).tolist()
        return [source.taken + count for source, count in zip(self.sources, own, strict=True)]


def stream_of(
    start: int, rows: HostRows, shuffle: bool = True, state: MixtureState | None = None
) -> mixture.Stream:
    """The part of a stream that `mixture.Stream` describes, from `state` on."""
    if state is None:
        return mixture.Stream(start, rows, shuffle)
    taken, indices = zip(*((one.taken, one.index) for one in state.sources), strict=True)
    return mixture.Stream(start, rows, shuffle, state.since, taken, indices)


class MixtureStates:
    """The states of a stream by kind, of its first example on until a state is restored.

    Args:
        open_sources: kind -> the sources of the config, each with its place as its index.
        kinds: that the stream reads.
        seed: of the stream.
    """

    def __init__(
        self, open_sources: Callable[[str], Sequence[Source]], kinds: Iterable[str], seed: int
    ):
        self._seed = seed
        self._now = {kind: tuple(open_sources(kind)) for kind in kinds}
        self._of = {kind: MixtureState(0, sources) for kind, sources in self._now.items()}
        self._others: dict[str, Any] = {}  # stored states of kinds that are not read now

    def __getitem__(self, kind: str) -> MixtureState:
        return self._of[kind]

    def state(self) -> dict[str, Any]:
        """The argument of `restore`, JSON-able."""
        states = {kind: dataclasses.asdict(state) for kind, state in self._of.items()}
        return self._others | states

    def restore(self, state: Mapping[str, Any] | None, examples: Mapping[str, int]) -> list[str]:
        """Continues the states of `state` after `examples` of each kind, with today's sources.

        None is the state of a stream that read no data sets. Returns a sentence for each kind whose
        sets or rates are others.
        """
        state, sentences = state or {}, []
        for kind, now in self._now.items():
            stored, number = state.get(kind, {}), examples[kind]
            sources, past = (
                tuple(Source(**fields) for fields in stored.get(name, ()))
                for name in ("sources", "past")
            )
            before = MixtureState(int(stored.get("since", 0)), sources, past)
            self._of[kind] = follow(before, now, number, self._seed)
            if sentence := _changes(before, self._of[kind], number):
                sentences.append(f"{kind}s: {sentence}")
        self._others = {kind: state[kind] for kind in state.keys() - self._now.keys()}
        return sentences


def follow(before: MixtureState, now: Sequence[Source], number: int, seed: int) -> MixtureState:
    """`before` from example `number` of the job on, with the sources `now`.

    A set that `before` has continues, in its own order; any other one is read from its start.
    """
    known = (*before.sources, *before.past)
    found = _match(known, now)
    if found == list(before.sources) and _rates(before.sources) == _rates(now):
        pairs = zip(now, before.sources, strict=True)
        kept = [dataclasses.replace(new, index=old.index, taken=old.taken) for new, old in pairs]
        return MixtureState(before.since, tuple(kept), before.past)
    counts = before.taken(number, seed) if before.sources else []
    counts += [source.taken for source in before.past]
    taken = dict(zip(known, counts, strict=True))
    unused = 1 + max((source.index for source in known), default=-1)
    sources = []
    for new, old in zip(now, found, strict=True):
        index, count = (unused, 0) if old is None else (old.index, taken[old])
        unused += old is None
        sources.append(dataclasses.replace(new, index=index, taken=count))
    past = [
        dataclasses.replace(old, taken=count) for old, count in taken.items() if old not in found
    ]
    return MixtureState(number, tuple(sources), tuple(past))


def _match(known: Sequence[Source], now: Sequence[Source]) -> list[Source | None]:
    """For each source of `now`, the one of `known` that it is.

    That is the one of the same path and number of records. A path that `known` lacks is a set that
    was moved, or the tokens of one, if one of its size is gone.
    """
    gone = [source for source in known if source.path not in {new.path for new in now}]
    found: list[Source | None] = []
    for new in now:
        same = [source for source in known if source.path == new.path]
        old = next((s for s in (same or gone) if _same_size(s, new)), None)
        gone = [source for source in gone if source is not old]
        found.append(old)
    return found


def _same_size(old: Source, new: Source) -> bool:
    return old.records is None or old.records == new.records


def _rates(sources: Sequence[Source]) -> list[float]:
    total = sum(source.rate for source in sources)
    return [source.rate / total for source in sources]


def _changes(before: MixtureState, after: MixtureState, number: int) -> str:
    """What `after` reads instead of `before`; "" where they are the same, or nothing was read."""
    if not number or not before.sources or after.since == before.since:
        return ""
    known = {source.index for source in (*before.sources, *before.past)}
    new = [source.path for source in after.sources if source.index not in known]
    read = f"; read from the start: {', '.join(new)}" if new else ""
    return (
        f"{_text(after.sources)} instead of {_text(before.sources)} from example {number} on; each "
        f"set continues after its own last example{read}."
    )


def _text(sources: Sequence[Source]) -> str:
    return ",".join(f"{source.path}={source.rate:g}" for source in sources)


def open_states(data, frames: int, seed: int, kinds: Iterable[str]) -> MixtureStates:
    """The states of the data sets of `config.data`, for clips of `frames` frames.

    Raises:
        UserError: a data set is missing, or bad rates.
    """
    from phenaki.data import clip_records, tokens  # TensorFlow, only where it is used

    rates = rates_of(data)

    def records(path: str, kind: str) -> int:
        if data["source"] == "codes":
            return tokens.size(path, "train", kind)
        return clip_records.size(path, "train", kind, frames)

    def open_sources(kind: str) -> list[Source]:
        return [
            Source(path, rate, records(path, kind), place)
            for place, (path, rate) in enumerate(mixture.rates(rates[kind]).items())
        ]

    return MixtureStates(open_sources, kinds, seed)


def rates_of(data) -> dict[str, dict[str, float]]:
    """Directory -> rate, by kind, of `config.data`; images are those of the clips' sets by default.

    Raises:
        UserError: a rate cannot be read.
    """
    videos = _parsed("sources", data["sources"])
    images = _parsed("image_sources", data.get("image_sources", ""))
    return {"video": videos, "image": images or videos}


def _parsed(field: str, sources: str) -> dict[str, float]:
    """ "a=0.8,b=0.2" or "a" as directory -> rate; directories may have =, as in day=3."""
    rates = {}
    for part in sources.split(",") if sources else ():
        directory, mark, rate = (text.strip() for text in part.rpartition("="))
        if not mark or "/" in rate or paths.path(part.strip()).exists():
            directory, rate = part.strip(), ""
        try:
            rates[directory] = float(rate or 1)
        except ValueError:
            raise UserError(
                f"config.data.{field}={sources!r}: {rate!r} must be a number, as in "
                "DIR=0.8,DIR=0.2."
            ) from None
    return rates


def state_of_earlier(
    state: Mapping[str, Any], data: Mapping[str, Any], fields: Mapping[str, str]
) -> dict[str, Any]:
    """`state` with what earlier versions did not store, by `data`: config.data of the run itself.

    `fields` are those of the rows of a batch, by kind.
    """
    examples = {kind: int(state["taken"]) * data.get(field, 0) for kind, field in fields.items()}
    states = {}
    for kind, rates in (rates_of(data) if data["source"] in SETS else {}).items():
        sources = [Source(*item, None, place) for place, item in enumerate(rates.items())]
        states[kind] = dataclasses.asdict(MixtureState(0, tuple(sources)))
    return {"examples": examples, "mixtures": states} | dict(state)
