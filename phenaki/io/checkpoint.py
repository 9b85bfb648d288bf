"""Stored runs and bundles: parameters with their config, loaded as float32 numpy."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epy
from ml_collections import ConfigDict

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.artifacts import write_json
from phenaki.io.checkpoint_manager import Checkpoints, complete_steps
from phenaki.io.checksums import digest
from phenaki.io.migrations import KINDS, SCHEMA, migrate, with_kind
from phenaki.io.paths import AnyPath, PathLike

with epy.lazy_imports():  # half a second, for what loads and stores only
    import orbax.checkpoint as ocp


def fingerprint(params: Any, sizes: Mapping[str, Any]) -> str:
    """16 hex digits that change with any parameter or any field of the tokenizer or the clips.

    `sizes` has the fields "tokenizer" and "video" of a plain config; others are ignored.
    """
    fields = {"tokenizer": sizes["tokenizer"], "video": sizes["video"]}
    return digest(params, json.dumps(fields, sort_keys=True).encode())


def save_bundle(
    directory: PathLike, params: dict[str, Any], fields: Mapping[str, Any], **facts
) -> None:
    """Writes `params` (one tree per network) and bundle.json, with the plain config `fields`.

    It replaces an existing bundle.
    """
    directory = paths.absolute(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", params, force=True)
    if jax.process_index() == 0:
        content = {"schema": SCHEMA, **facts, "config": with_kind(fields)}
        write_json(directory / "bundle.json", content, indent=2)


def load_bundle(directory: PathLike) -> tuple[dict[str, Any], ConfigDict, dict[str, Any]]:
    """(parameters as float32 numpy, config, other facts) of a bundle."""
    directory = paths.absolute(directory)
    facts = json.loads((directory / "bundle.json").read_text())
    fields = migrate(facts.pop("config", {}), facts.pop("schema"), directory)
    return _restore(directory / "params"), ConfigDict(fields), facts


def _restore(path: AnyPath):
    """A checkpointed tree as float32 numpy, whatever devices and dtypes wrote it."""
    # The checkpointer's own `metadata` needs a file that the items of a run's checkpoint lack.
    tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
    with ocp.PyTreeCheckpointer() as checkpointer:
        types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        params = checkpointer.restore(path, restore_args=types)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def is_run(directory: PathLike) -> bool:
    """Whether `directory` contains a training run."""
    return paths.is_file(paths.path(directory) / "config.json")


def load_config(directory: PathLike) -> ConfigDict:
    """The config of a training run."""
    fields = json.loads((paths.path(directory) / "config.json").read_text())
    return ConfigDict(migrate(fields, fields.pop("schema", 1), directory))


def save_config(directory: PathLike, fields: Mapping[str, Any]) -> None:
    """Makes `directory` a training run of the plain config `fields`."""
    content = {"schema": SCHEMA, **with_kind(fields)}
    write_json(paths.path(directory) / "config.json", content, indent=2)


def has_checkpoint(directory: PathLike) -> bool:
    """Whether `directory` is a run to resume: one with a checkpoint."""
    return is_run(directory) and bool(complete_steps(paths.path(directory) / "checkpoints"))


def steps_done(directory: PathLike) -> int:
    """The step of a run's newest checkpoint; 0 where there is no run or no checkpoint yet."""
    if not is_run(directory):
        return 0
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        return checkpoints.latest or 0


def load_run(directory: PathLike) -> tuple[Any, ConfigDict, int]:
    """(averaged parameters as numpy, config, step) of a run's newest checkpoint.

    Raises:
        UserError: `directory` is no training run, or has no checkpoint yet.
    """
    directory = paths.absolute(directory)  # Orbax refuses relative paths
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such directory; give a run's --workdir or a saved bundle."
        )
    if not is_run(directory):
        raise UserError(
            f"{directory}: is not a run (it has no config.json); give a training run's --workdir."
        )
    config = load_config(directory)
    steps = complete_steps(directory / "checkpoints")
    if not steps:
        raise UserError(f"{directory}: has no checkpoint yet; train until one is written.")
    state = _restore(directory / "checkpoints" / str(steps[-1]) / "state")
    return state["ema"], config, steps[-1]


def load_critic(directory: PathLike) -> tuple[Any, ConfigDict]:
    """(averaged parameters, config) of a critic's training run.

    Raises:
        UserError: `directory` is no critic's run.
    """
    params, config, _ = load_run(directory)
    if config.kind != "critic":
        raise UserError(f"{directory}: is not a critic's run; {KINDS['critic']} trains one.")
    return params, config


def load_tokenizer(directory: PathLike) -> tuple[Any, ConfigDict, str]:
    """(parameters, config, fingerprint) of a tokenizer's run or bundle, or of a whole model's.

    Raises:
        UserError: `directory` is the run of a MaskGIT or of a critic.
    """
    if paths.is_file(paths.path(directory) / "bundle.json"):
        params, config, _ = load_bundle(directory)
        params = params["tokenizer"]
    else:
        params, config, _ = load_run(directory)
        if config.kind == "maskgit":
            raise UserError(
                f"{directory}: is a MaskGIT run; its tokenizer is {directory}/tokenizer."
            )
        if config.kind != "tokenizer":
            raise UserError(f"{directory}: is a critic's run; give that of a tokenizer.")
    return params, config, fingerprint(params, config.to_dict())
