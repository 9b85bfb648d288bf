"""Kinds of values: each tells what is wrong with a value, and what it is in words."""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

from phenaki.errors import UserError, did_you_mean

LARGE = 1e6  # what a plain number may be: more is a slip, or loses all digits of float32
WHOLE = 2**31 - 1  # of int32, in which counts are computed


class Wrong(NamedTuple):
    """A value that breaks a rule; `place` is its index within a sequence, such as "[1]"."""

    place: str
    value: Any
    rule: str  # with the nearest good value, without a full stop

    def sentence(self, path: str) -> str:
        """The error for a value at `path`."""
        return f"{path}{self.place}={self.value!r} {self.rule}."


def _plain(value: Any) -> Any:
    """A scalar array as Python's own number."""
    try:
        return value.item() if getattr(value, "ndim", None) == 0 else value
    except NotImplementedError:  # a key of jax.random
        return value


def _is_number(value: Any, whole: bool) -> bool:
    kind = numbers.Integral if whole else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    """Whether a number is finite; whole ones may be beyond all of float."""
    return isinstance(value, numbers.Integral) or math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number; `above` and `below` leave out the bounds themselves."""

    least: float | int = -LARGE
    most: float | int = LARGE
    above: bool = False
    below: bool = False
    whole: bool = False

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        value = _plain(value)
        if not _is_number(value, self.whole):
            return Wrong("", value, f"must be a {self._noun}{self._hint(value)}")
        if not _is_finite(value):
            return Wrong("", value, "must be a finite number")
        if value < self.least or (self.above and value == self.least):
            return Wrong("", value, f"must be {'above' if self.above else 'at least'} {self._low}")
        if value > self.most or (self.below and value == self.most):
            return Wrong("", value, f"must be {'below' if self.below else 'at most'} {self._high}")
        return None

    def _hint(self, value: Any) -> str:
        """The nearest whole number of one that is not."""
        if not _is_number(value, whole=False) or not _is_finite(value):
            return ""
        return f"; nearest is {min(max(round(value), self.least), self.most)}"

    @property
    def _noun(self) -> str:
        return "whole number" if self.whole else "number"

    @property
    def _low(self) -> str:
        return _shown(self.least)

    @property
    def _high(self) -> str:
        return _shown(self.most)

    def words(self) -> str:
        """The rule in words, for tables and help."""
        low = f"above {self._low}" if self.above else f"{self._low}"
        high = f"below {self._high}" if self.below else f"{self._high}"
        if self.most >= (WHOLE if self.whole else LARGE):
            if self.least <= -LARGE:
                return self._noun
            return f"{self._noun} {low}" if self.above else f"{self._noun}, at least {low}"
        return f"{self._noun}, {low} to {high}"


def whole(least: int = 0, most: int = WHOLE) -> Number:
    """The rule of a whole number."""
    return Number(least, most, whole=True)


@dataclasses.dataclass(frozen=True)
class Seed:
    """A whole number of so many bits."""

    bits: int

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        value = _plain(value)
        if not _is_number(value, whole=True):
            return Wrong("", value, "must be a whole number")
        if not 0 <= value < 2**self.bits:
            nearest = min(max(int(value), 0), 2**self.bits - 1)
            rule = f"must lie in [0, 2**{self.bits} - 1]; nearest is {nearest}"
            return Wrong("", value, rule)
        return None

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return f"whole number, 0 to 2**{self.bits} - 1"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some names."""

    names: tuple[Any, ...]

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        if any(type(value) is type(name) and value == name for name in self.names):
            return None
        known = ", ".join(map(str, self.names))
        return Wrong("", value, f"must be one of {known}{did_you_mean(value, self.names)}")

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return " or ".join(map(str, self.names))


def choice(*names: Any) -> Choice:
    """The rule of one of `names`."""
    return Choice(names)


@dataclasses.dataclass(frozen=True)
class Text:
    """A text; `empty` allows one without a character."""

    empty: bool = False

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        if isinstance(value, str) and (self.empty or value.strip()):
            return None
        return Wrong("", value, "must be text, quoted if necessary")  # YAML reads yes, no and 12

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return "text"


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        right = isinstance(_plain(value), bool)
        return None if right else Wrong("", value, "must be True or False")

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return "True or False"


@dataclasses.dataclass(frozen=True)
class Several:
    """A sequence of values that `each` obey a rule: `count` of them, or at least `least`."""

    each: "Rule"
    count: int | None = None
    least: int = 0
    such_as: str = ""

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        values = value.tolist() if getattr(value, "ndim", None) == 1 else value
        sequence = isinstance(values, Sequence) and not isinstance(values, str | bytes)
        size_fits = sequence and len(values) == (len(values) if self.count is None else self.count)
        if not size_fits or len(values) < self.least:
            example = f", such as {self.such_as}" if self.such_as else ""
            return Wrong("", value, f"must be {self._size()}{example}")
        for index, one in enumerate(values):
            if found := self.each.wrong(one):
                return found._replace(place=f"[{index}]{found.place}")
        return None

    def _size(self) -> str:
        some = f"{self.least} or more values" if self.least else "a sequence"
        return some if self.count is None else f"{self.count} values"

    def words(self) -> str:
        """The rule in words, for tables and help."""
        size = f"{self.count} of: " if self.count else "several of: "
        return size + self.each.words()


@dataclasses.dataclass(frozen=True)
class Interval:
    """Two rising fractions of 0 to 1."""

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        if Several(Number(0, 1), count=2).wrong(value) is None and value[0] < value[1]:
            return None
        return Wrong("", value, "must be two rising fractions, such as (0, 0.25)")

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return "two rising fractions, 0 to 1"


@dataclasses.dataclass(frozen=True)
class Either:
    """A value of the first rule, or of the second."""

    one: "Rule"
    other: "Rule"

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        found = [rule.wrong(value) for rule in (self.one, self.other)]
        if None in found:
            return None
        if isinstance(value, Sequence) and not isinstance(value, str):
            return found[1]
        first: Any = found[0]
        if isinstance(value, numbers.Real) and not isinstance(self.other, Choice):
            return first
        return first._replace(rule=f"{first.rule}, or {self.other.words()}")

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return f"{self.one.words()}; or {self.other.words()}"


@dataclasses.dataclass(frozen=True)
class OrNone:
    """None, or a value of a rule."""

    rule: "Rule"

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        return None if value is None else self.rule.wrong(value)

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return f"{self.rule.words()}; or None"


@dataclasses.dataclass(frozen=True)
class ZeroOr:
    """0, which turns something off, or a value of a rule."""

    rule: "Number"

    def wrong(self, value: Any) -> Wrong | None:
        """What is wrong with `value`; None where nothing is."""
        found = self.rule.wrong(value)
        if found is None or (_is_number(_plain(value), self.rule.whole) and _plain(value) == 0):
            return None
        return found._replace(rule=found.rule.replace("must be", "must be 0, or", 1))

    def words(self) -> str:
        """The rule in words, for tables and help."""
        return f"0, or {self.rule.words()}"


Rule = Number | Seed | Choice | Text | Flag | Several | Interval | Either | OrNone | ZeroOr


class Field(NamedTuple):
    """What a field may be, and what it means."""

    rule: Rule
    meaning: str


def check(path: str, value: Any, rule: Rule) -> None:
    """Raises `UserError` with the rule unless `value`, which is given at `path`, obeys it."""
    if wrong := rule.wrong(value):
        raise UserError(wrong.sentence(path))


def _shown(bound: float | int) -> str:
    return f"{bound}" if isinstance(bound, int) else f"{bound:g}"
