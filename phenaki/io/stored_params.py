"""Parameters on disk as numpy, compared with the checksums that were written with them."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epy

from phenaki.errors import UserError
from phenaki.io import checksums, failures, verify
from phenaki.io.paths import AnyPath

with epy.lazy_imports():  # half a second, for what loads and stores only
    import orbax.checkpoint as ocp


def tree_sums(tree: Any) -> dict[str, int]:
    """The checksum of every array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): checksums.bit_sum(leaf) for path, leaf in leaves}


def float_type(dtype: Any) -> Any:
    """The type that `dtype` names, if parameters can be stored as it.

    Raises:
        UserError: it is none, or of whole numbers.
    """
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise UserError(f"dtype={dtype!r}: must be of floating point, float32 or bfloat16.")
    return found


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def load(path: AnyPath, sums: Mapping[str, int] | None) -> Any:
    """A checkpointed tree as float32 numpy, whatever devices and dtypes wrote it.

    Raises:
        ValueError: `sums`, the `tree_sums` that were written with it, are others.
        Exception: others of Orbax, on a damaged file.
    """
    tree = _restore(path)
    if sums is not None and verify.verified() and tree_sums(tree) != sums:
        raise ValueError("its checksums do not match")
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def load_average(checkpoint: AnyPath) -> Any:
    """The averaged parameters in the `checkpoint` of a run, as float32 numpy; nothing else is read.

    Raises:
        ValueError: the checksums in it are others.
        Exception: others of Orbax, on a damaged file.
    """
    state = checkpoint / "state"
    average = _restore(state, "ema")
    if verify.verified():
        content = json.loads((checkpoint / "data" / "metadata").read_text())
        if "sums" in content:  # not in an old checkpoint, from before checksums
            own = [checksums.bit_sum(leaf) for leaf in jax.tree.leaves(average)]
            # Sums are in the order of the state: after the averaged parameters comes `extra`.
            after = len(jax.tree.leaves(_metadata(state).get("extra", {})))
            end = len(content["sums"]) - after
            if content["sums"][end - len(own) : end] != own:
                raise ValueError("its checksums do not match")
    return jax.tree.map(lambda x: np.asarray(x, np.float32), average)


def _metadata(path: AnyPath) -> Any:
    # The checkpointer's own `metadata` needs a file that the items of a run's checkpoint lack.
    return ocp.PyTreeCheckpointHandler().metadata(path).tree


def _restore(path: AnyPath, part: str | None = None) -> Any:
    """The tree at `path`, or its entry `part`, as numpy of the stored dtypes."""
    tree = _metadata(path)
    wanted = tree if part is None else {part: tree[part]}
    types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    arguments = ocp.args.PyTreeRestore(
        item=wanted, restore_args=types, partial_restore=part is not None
    )
    handler = ocp.PyTreeCheckpointHandler()
    with failures.quiet_ends(), ocp.Checkpointer(handler) as checkpointer:
        restored = checkpointer.restore(path, args=arguments)
    return restored if part is None else restored[part]
