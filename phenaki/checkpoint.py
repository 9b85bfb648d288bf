"""Orbax checkpoints of runs, and bundles: parameters with the config and facts to use them."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from phenaki.errors import UserError

SCHEMA = 1  # of bundle.json


def fingerprint(params, config: ConfigDict) -> str:
    """16 hex digits that change with any parameter or any field of `config.tokenizer`, `.video`."""
    digest = hashlib.sha256()
    fields = {"tokenizer": config.tokenizer.to_dict(), "video": config.video.to_dict()}
    digest.update(json.dumps(fields, sort_keys=True).encode())
    for path, leaf in sorted(
        (jax.tree_util.keystr(k), v) for k, v in jax.tree_util.tree_leaves_with_path(params)
    ):
        digest.update(path.encode())
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:16]


def save_bundle(directory: str | Path, params: dict[str, Any], config: ConfigDict, **facts) -> None:
    """Writes `params` (one tree per network) and bundle.json; replaces what stood there."""
    directory = Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", params, force=True)
    text = json.dumps({"schema": SCHEMA, **facts, "config": config.to_dict()}, indent=2)
    (directory / "bundle.json").write_text(text + "\n")


def load_bundle(directory: str | Path) -> tuple[dict[str, Any], ConfigDict, dict[str, Any]]:
    """(parameters as float32 numpy, config, other facts) of a bundle."""
    directory = Path(directory).resolve()
    facts = json.loads((directory / "bundle.json").read_text())
    if facts["schema"] != SCHEMA:
        raise UserError(
            f"{directory}: bundle schema {facts['schema']} is not {SCHEMA}, which this version "
            "reads."
        )
    return _restore(directory / "params"), ConfigDict(facts.pop("config")), facts


def _restore(path: Path):
    """A checkpointed tree as float32 numpy, whatever devices and types wrote it."""
    # The checkpointer's own `metadata` wants a file that items of a run's checkpoint do not have.
    tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
    with ocp.PyTreeCheckpointer() as checkpointer:
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        params = checkpointer.restore(path, restore_args=kinds)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


class Run:
    """The checkpoints of one training run: `directory`/config.json and checkpoints/<step>."""

    def __init__(self, directory: str | Path, keep: int = 2):
        self.directory = Path(directory).resolve()
        self._manager = ocp.CheckpointManager(
            self.directory / "checkpoints",
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
        )

    @property
    def latest(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state, data: dict) -> None:
        """Writes `state` and the data iterator's state in the background."""
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data))
        self._manager.save(step, args=items)

    def restore(self, state) -> tuple[Any, dict]:
        """The newest checkpoint, laid out as the (sharded, possibly abstract) `state`."""
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(state), data=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(self.latest, args=items)
        return restored["state"], restored["data"]

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def is_run(directory: str | Path) -> bool:
    """Whether a training run wrote there."""
    return (Path(directory) / "config.json").is_file()


def load_config(directory: str | Path) -> ConfigDict:
    """The config of a run."""
    return ConfigDict(json.loads((Path(directory) / "config.json").read_text()))


def steps_done(directory: str | Path) -> int:
    """The step of a run's newest checkpoint; 0 where there is no run or none yet."""
    if not is_run(directory):
        return 0
    with contextlib.closing(Run(directory)) as run:
        return run.latest or 0


def load_run(directory: str | Path) -> tuple[Any, ConfigDict, int]:
    """(averaged parameters as numpy, config, step) of a run's newest checkpoint."""
    directory = Path(directory).resolve()  # Orbax refuses relative paths
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such directory; give a run's --workdir or a saved bundle."
        )
    if not is_run(directory):
        raise UserError(
            f"{directory}: is not a run (it has no config.json); give a --workdir of training."
        )
    config = load_config(directory)
    steps = sorted(
        int(p.name) for p in (directory / "checkpoints").glob("[0-9]*") if p.name.isdigit()
    )
    if not steps:
        raise UserError(f"{directory}: has no checkpoint yet; train until one is written.")
    state = _restore(directory / "checkpoints" / str(steps[-1]) / "state")
    return state["ema"], config, steps[-1]


def load_critic(directory: str | Path) -> tuple[Any, ConfigDict]:
    """(averaged parameters, config) of a critic's run."""
    params, config, _ = load_run(directory)
    if "critic" not in config:
        raise UserError(f"{directory}: is no critic's run; scripts/train_critic.py makes one.")
    return params, config


def load_tokenizer(directory: str | Path) -> tuple[Any, ConfigDict, str]:
    """(parameters, config, fingerprint) of a tokenizer's run or bundle, or of a whole model's."""
    if (Path(directory) / "bundle.json").is_file():
        params, config, _ = load_bundle(directory)
        params = params["tokenizer"]
    else:
        params, config, _ = load_run(directory)
        if "model" in config:
            raise UserError(
                f"{directory}: is a MaskGIT run; its tokenizer lies in {directory}/tokenizer."
            )
    return params, config, fingerprint(params, config)
