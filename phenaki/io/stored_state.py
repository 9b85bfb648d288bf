"""What a checkpoint's state has that a run's state lacks, and the reverse.

A resumed run may have another discriminator or EMA codebook than its checkpoint, or none. These are
entries of `extra` (`TrainState`): whole entries may be new or dropped, everything else must fit.
"""

import dataclasses
from typing import Any

import jax
from etils import epy
from jax.sharding import NamedSharding, PartitionSpec

from phenaki.io.paths import PathLike

with epy.lazy_imports():  # half a second, for what loads and stores only
    import orbax.checkpoint as ocp

# Entries of `extra` by what users call them.
WORDS = {"discriminator": "discriminator", "sums": "table of EMA codes"}


def read(directory: PathLike) -> Any:
    """The tree of array metadata of the state in `directory`."""
    return ocp.PyTreeCheckpointHandler().metadata(directory).tree


def changed(state: Any, stored: Any) -> tuple[list[str], list[str]]:
    """The names of entries of `extra` that only `state` has, and that only `stored` has."""
    own, theirs = getattr(state, "extra", None), stored["extra"] if "extra" in stored else None
    if not (isinstance(own, dict) and isinstance(theirs, dict)):
        return [], []
    return sorted(own.keys() - theirs.keys()), sorted(theirs.keys() - own.keys())


def like(state: Any, stored: Any) -> Any:
    """`state` with the entries of `extra` that `stored` has: what Orbax can restore."""
    new, dropped = changed(state, stored)
    if not new and not dropped:
        return state
    sharding = jax.tree.leaves(state)[0].sharding
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())

    def abstract(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    extra = {name: value for name, value in state.extra.items() if name not in new}
    extra |= {name: jax.tree.map(abstract, stored["extra"][name]) for name in dropped}
    return dataclasses.replace(state, extra=extra)


def completed(restored: Any, fresh: Any) -> Any:
    """`restored` with the entries of `extra` that `fresh` has: those it lacks are of `fresh`."""
    extra = {name: restored.extra.get(name, value) for name, value in fresh.extra.items()}
    return dataclasses.replace(restored, extra=extra)


def difference(state: Any, stored: Any) -> str:
    """The first array of both whose shape differs, with both shapes; "" where none does."""
    own, theirs = _shapes(state), _shapes(stored)
    for path in own:
        if path in theirs and own[path] != theirs[path]:
            return f"its {path} has shape {theirs[path]}, this config's {own[path]}"
    return ""


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = (
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves
    )
    return {path: tuple(leaf.shape) for path, leaf in named}
