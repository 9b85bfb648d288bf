"""Which file of an input a name in a table means."""

import functools
import unicodedata
from collections.abc import Callable
from os.path import normpath
from pathlib import PurePosixPath

from phenaki.data.prepare.layouts import walk


class Files:
    """Finds the media that a table names."""

    def __init__(self, found: walk.Listing):
        self._known, self._found = set(found.media), found
        self._roots = dict.fromkeys((found.root.absolute(), found.root.resolve()))

    def find(self, name: str, place: PurePosixPath) -> str | None:
        """The key of a name relative to the folder `place` or to the input, or an absolute one.

        Backslashes, other forms of the same letters (macOS), another case (Windows) and a missing
        suffix are allowed for. In a table at the top, the name alone of a file in any folder will
        do, if only one has it.
        """
        name = name.strip().removeprefix("file://")
        for root in self._roots:
            if name.startswith("/") and PurePosixPath(normpath(name)).is_relative_to(root):
                return self._key(PurePosixPath(normpath(name)).relative_to(root).as_posix())
        if not name:
            return None
        inside = (self._key(normpath(folder / name)) for folder in (place, PurePosixPath()))
        found = next(filter(None, inside), None)
        return found or (None if place.parts else self._anywhere.get(simple(name)))

    def is_several(self, name: str) -> bool:
        """Whether files in several folders have the name."""
        return self._anywhere.get(simple(name), "") is None

    def _key(self, key: str) -> str | None:
        return key if key in self._known else self._loose.get(simple(key))

    @functools.cached_property
    def _loose(self) -> dict[str, str | None]:
        return self._by(lambda key: key)

    @functools.cached_property
    def _anywhere(self) -> dict[str, str | None]:
        return self._by(lambda key: PurePosixPath(key).name)

    def _by(self, named: Callable[[str], str]) -> dict[str, str | None]:
        """Keys by spellings of their names, with and without suffix; None for several files."""
        keys: dict[str, str | None] = {}
        for key in self._found.media:
            name = named(key)
            for spelt in {simple(name), simple(name.rpartition(".")[0])}:
                keys[spelt] = None if spelt in keys else key
        return keys


def simple(key: str) -> str:
    """A name as it is compared: normal, with / for backslashes, in no case."""
    return unicodedata.normalize("NFC", normpath(key.replace("\\", "/"))).casefold()
