"""Orbax checkpoints of runs, and bundles: parameters with the config and facts to use them."""

import contextlib
import errno
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from phenaki.errors import UserError
from phenaki.io.artifacts import write_json
from phenaki.io.migrations import SCHEMA, migrate

# Orbax logs the whole stack of a failed write, then raises it: one line of `Checkpoints` is enough.
logging.get_absl_logger().addFilter(lambda record: "/orbax/" not in record.pathname)


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
    if jax.process_index() == 0:
        content = {"schema": SCHEMA, **facts, "config": config.to_dict()}
        write_json(directory / "bundle.json", content, indent=2)


def load_bundle(directory: str | Path) -> tuple[dict[str, Any], ConfigDict, dict[str, Any]]:
    """(parameters as float32 numpy, config, other facts) of a bundle."""
    directory = Path(directory).resolve()
    facts = json.loads((directory / "bundle.json").read_text())
    config = migrate(facts.pop("config", {}), facts.pop("schema"), directory)
    return _restore(directory / "params"), ConfigDict(config), facts


def _restore(path: Path):
    """A checkpointed tree as float32 numpy, whatever devices and types wrote it."""
    # The checkpointer's own `metadata` wants a file that items of a run's checkpoint do not have.
    tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
    with ocp.PyTreeCheckpointer() as checkpointer:
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        params = checkpointer.restore(path, restore_args=kinds)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


class Checkpoints:
    """The checkpoints of one training run: `directory`/config.json and checkpoints/<step>."""

    def __init__(self, directory: str | Path, keep: int = 2):
        self.directory = Path(directory).resolve()
        self._steps = self.directory / "checkpoints"
        self._keep = keep
        with self._writing():
            self._open()

    def _open(self) -> None:
        self._manager = ocp.CheckpointManager(
            self._steps,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, enable_async_checkpointing=True
            ),
        )

    @property
    def latest(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state, data: dict) -> None:
        """Writes `state` and `data`, the data iterator's state, in the background.

        Raises:
            UserError: this one, or the one before, could not be written.
        """
        # Stored arrays have no checksums of their own: a flipped bit would go unseen.
        noted = {"data": data, "sums": _sums(state), "data_sum": _data_sum(data)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(noted)
        )
        with self._writing():
            self._manager.save(step, args=items)

    def restore(self, state) -> tuple[Any, dict]:
        """The newest checkpoint that is whole, laid out as the (sharded, maybe abstract) `state`.

        A damaged one is passed over, with a warning, for the one before, and moved to
        `directory`/damaged: nothing is thrown away.
        """
        damaged: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, state)
            except Exception as error:  # a damaged file makes the libraries raise anything at all
                damaged[step] = error
                continue
            for newer, damage in damaged.items():
                reason = " ".join(str(damage).split())[:200]
                logging.warning(
                    "%s: the checkpoint of step %d is damaged (%s); going on from step %d.",
                    self.directory, newer, reason, step,
                )  # fmt: skip
            if damaged:
                self._set_aside(list(damaged))
            return restored
        raise next(iter(damaged.values()))  # of all: it is not the files

    def _restore(self, step: int, state) -> tuple[Any, dict]:
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(state), data=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        state, noted = restored["state"], restored["data"]
        if "sums" not in noted:  # written before there were any
            return state, noted
        if noted["sums"] != _sums(state) or noted["data_sum"] != _data_sum(noted["data"]):
            raise ValueError("its content is not what was written")
        return state, noted["data"]

    def _set_aside(self, steps: list[int]) -> None:
        self._manager.close()
        if jax.process_index() == 0:
            (self.directory / "damaged").mkdir(exist_ok=True)
            for step in steps:
                (self._steps / str(step)).replace(self.directory / "damaged" / str(step))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._open()

    def wait(self) -> None:
        """Until what is being written is. Raises `UserError` if it could not be."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written.

        Raises:
            UserError: it could not be written.
        """
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self):
        """Says in one line what stopped a checkpoint, and which one stands."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            whole = sorted(int(p.name) for p in self._steps.glob("[0-9]*") if p.name.isdigit())
            stands = f"that of step {whole[-1]} is whole" if whole else "there is none yet"
            raise UserError(
                f"{self._steps}: a checkpoint could not be written ({_reason(error)}); {stands}. "
                "Make room or set it right, and run the same command again."
            ) from error


def _reason(error: Exception) -> str:
    """What the system said, out of what the libraries made of it."""
    text = " ".join(str(error).split())
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS):
        if os.strerror(code) in text:
            return os.strerror(code)
    return text[:300]


def _sums(state) -> list[int]:
    """A checksum of every array, the same on any mesh: its bits as numbers, added up."""
    return [int(total) for total in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


@jax.jit
def _bit_sums(leaves):
    def total(leaf):
        kind = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = leaf if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, kind)
        return bits.astype(jnp.uint32).sum(dtype=jnp.uint32)

    return [total(leaf) for leaf in leaves]


def _data_sum(data: dict) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())


def is_run(directory: str | Path) -> bool:
    """Whether a training run wrote there."""
    return (Path(directory) / "config.json").is_file()


def load_config(directory: str | Path) -> ConfigDict:
    """The config of a run."""
    config = json.loads((Path(directory) / "config.json").read_text())
    return ConfigDict(migrate(config, config.pop("schema", 1), directory))


def save_config(directory: str | Path, config: ConfigDict) -> None:
    """Makes `directory` a run of `config`."""
    content = {"schema": SCHEMA, **config.to_dict()}
    write_json(Path(directory) / "config.json", content, indent=2)


def steps_done(directory: str | Path) -> int:
    """The step of a run's newest checkpoint; 0 where there is no run or none yet."""
    if not is_run(directory):
        return 0
    with contextlib.closing(Checkpoints(directory)) as run:
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
