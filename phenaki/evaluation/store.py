"""Per-clip arrays in shards on disk, so that a killed evaluation resumes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from phenaki.errors import UserError
from phenaki.io import npz, outputs, paths, shared_folder
from phenaki.io.artifacts import atomic
from phenaki.io.paths import AnyPath, PathLike
from phenaki.progress import Progress

Arrays = Mapping[str, np.ndarray]
MANIFEST = "settings.json"


class Store:
    """Arrays by name of `total` items [total, ...], `per_shard` items in a file.

    The folder's name holds a digest of `settings` (everything the values depend on), so different
    settings never mix in a folder, and table rows of equal settings share their work.
    """

    def __init__(
        self, root: PathLike, kind: str, settings: Mapping[str, Any], total: int, per_shard: int
    ):
        text = json.dumps({**settings, "per_shard": per_shard}, sort_keys=True, indent=2)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.directory = paths.path(root) / f"{kind}-{digest}"
        self.total, self.per_shard = total, per_shard
        self.directory.mkdir(parents=True, exist_ok=True)
        with atomic(self.directory / MANIFEST) as partial:  # hosts write it at the same time
            partial.write_text(text + "\n")

    def _path(self, shard: int) -> AnyPath:
        start, stop = self._span(shard)
        return self.directory / f"{start:07d}-{stop:07d}.npz"  # a larger total redoes the last

    def _span(self, shard: int) -> tuple[int, int]:
        return shard * self.per_shard, min((shard + 1) * self.per_shard, self.total)

    @property
    def shards(self) -> range:
        """Indices of all shards."""
        return range(-(-self.total // self.per_shard))

    def missing(self) -> list[int]:
        """Shards that are not complete."""
        there = set(paths.names(self.directory))
        return [shard for shard in self.shards if self._path(shard).name not in there]

    def fill(self, make: Callable[[int, int], Arrays], what: str) -> None:
        """Writes the missing shards from `make(start, stop)`, each host its own.

        Returns on every host once all shards are complete. `what` names the progress line, of what
        was complete before and this host's own.

        Raises:
            UserError: hosts do not see one folder.
        """
        shared_folder.check_seen("output", self.directory.parent)
        missing = self.missing()
        # By shard index, not by place in the list: hosts list the folder at different times.
        mine = [s for s in missing if s % jax.process_count() == jax.process_index()]
        before = self.total - self._items(missing)
        with Progress(before + self._items(mine), what, before) as progress:
            for shard in mine:
                start, stop = self._span(shard)
                self._write(shard, make(start, stop))
                progress.update(stop - start)
        # By its name: hosts may reach the folder by other paths.
        outputs.together(f"{self.directory.name} complete")

    def _items(self, shards: Sequence[int]) -> int:
        return sum(stop - start for start, stop in map(self._span, shards))

    def _write(self, shard: int, arrays: Arrays) -> None:
        start, stop = self._span(shard)
        for name, array in arrays.items():
            if len(array) != stop - start:
                raise ValueError(f"{name}: {len(array)} rows for items {start} to {stop}.")
        path = self._path(shard)
        with atomic(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def read(self, name: str) -> Iterator[np.ndarray]:
        """Yields the array `name` shard by shard.

        Raises:
            UserError: a shard cannot be read.
        """
        for shard in self.shards:
            try:
                with paths.local(self._path(shard)) as file:
                    yield npz.read(file, {name})[name]
            except Exception as error:  # of a damaged archive any
                raise UserError(
                    f"{self._path(shard)}: cannot be read ({error}); delete it and run again."
                ) from None

    def array(self, name: str) -> np.ndarray:
        """The whole array `name`; for one number or a short row per item."""
        return np.concatenate(list(self.read(name)))
