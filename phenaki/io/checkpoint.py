"""Orbax checkpoints of training runs, and bundles: parameters with their config and facts."""

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from phenaki.errors import UserError
from phenaki.io import stored_state
from phenaki.io.artifacts import write_json
from phenaki.io.checksums import array_sums, digest
from phenaki.io.migrations import KINDS, SCHEMA, migrate, with_kind


def fingerprint(params: Any, sizes: Mapping[str, Any]) -> str:
    """16 hex digits that change with any parameter or any field of the tokenizer or the clips.

    `sizes` has the fields "tokenizer" and "video" of a plain config; others are ignored.
    """
    fields = {"tokenizer": sizes["tokenizer"], "video": sizes["video"]}
    return digest(params, json.dumps(fields, sort_keys=True).encode())


def save_bundle(
    directory: str | Path, params: dict[str, Any], fields: Mapping[str, Any], **facts
) -> None:
    """Writes `params` (one tree per network) and bundle.json, with the plain config `fields`.

    It replaces an existing bundle.
    """
    directory = Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(directory / "params", params, force=True)
    if jax.process_index() == 0:
        content = {"schema": SCHEMA, **facts, "config": with_kind(fields)}
        write_json(directory / "bundle.json", content, indent=2)


def load_bundle(directory: str | Path) -> tuple[dict[str, Any], ConfigDict, dict[str, Any]]:
    """(parameters as float32 numpy, config, other facts) of a bundle."""
    directory = Path(directory).resolve()
    facts = json.loads((directory / "bundle.json").read_text())
    fields = migrate(facts.pop("config", {}), facts.pop("schema"), directory)
    return _restore(directory / "params"), ConfigDict(fields), facts


def _restore(path: Path):
    """A checkpointed tree as float32 numpy, whatever devices and dtypes wrote it."""
    # The checkpointer's own `metadata` needs a file that the items of a run's checkpoint lack.
    tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
    with ocp.PyTreeCheckpointer() as checkpointer:
        types = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        params = checkpointer.restore(path, restore_args=types)
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def _not_from_orbax(record: Any) -> bool:
    return "/orbax/" not in record.pathname


class Checkpoints:
    """The checkpoints of one training run, `directory`/checkpoints/<step>; keeps the last `keep`.

    Every checkpoint contains checksums: restoring one that is damaged falls back to the one before.
    """

    def __init__(self, directory: str | Path, keep: int = 2):
        # Orbax logs the whole stack of a failed write and then raises it; our one line is enough.
        # A logger adds the same filter only once.
        logging.get_absl_logger().addFilter(_not_from_orbax)
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
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state, data: dict) -> None:
        """Writes `state` and `data`, the JSON-able state of the run's host side, asynchronously.

        Raises:
            UserError: this checkpoint, or the one before, could not be written.
        """
        # Orbax stores no checksums of arrays: without these a flipped bit would go unnoticed.
        content = {"data": data, "sums": array_sums(state), "data_sum": _data_sum(data)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(content)
        )
        with self._writing():
            self._manager.save(step, args=items)

    def restore(self, state, fresh: Callable[[], Any] | None = None) -> tuple[Any, dict]:
        """(state, data) of the newest undamaged checkpoint, sharded as `state` (abstract or not).

        A damaged checkpoint is skipped with a warning and moved to `directory`/damaged; nothing is
        deleted. Entries of `state.extra` that the checkpoint lacks are those of `fresh()`, or of
        `state`; those that `state` lacks are dropped. Either is one line.

        Raises:
            UserError: an array of every checkpoint has another shape than in `state`.
        """
        damaged: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, state)
            except Exception as error:  # the libraries raise anything on a damaged file
                damaged[step] = error
                continue
            for newer, damage in damaged.items():
                reason = " ".join(str(damage).split())[:200]
                logging.warning(
                    "%s: the checkpoint of step %d is damaged (%s); resuming from step %d.",
                    self.directory, newer, reason, step,
                )  # fmt: skip
            if damaged:
                self._set_aside(list(damaged), self.directory / "damaged")
            return self._completed(step, state, *restored, fresh)
        # Where every checkpoint fails, the files are not the reason.
        self._raise_difference(max(damaged), state)
        raise next(iter(damaged.values()))

    def _completed(self, step: int, state, restored, data: dict, fresh) -> tuple[Any, dict]:
        """(`restored` with the entries of `state`, `data`)."""
        new, dropped = stored_state.changed(state, stored_state.read(self._state_of(step)))
        lines = dict.fromkeys(new, "has no {}: it starts fresh")
        lines |= dict.fromkeys(dropped, "has a {} that this config does not train: it is dropped")
        for name, line in lines.items():
            what = line.format(stored_state.WORDS.get(name, name))
            logging.warning("%s: the checkpoint of step %d %s.", self.directory, step, what)
        if new or dropped:
            restored = stored_state.completed(restored, fresh() if fresh else state)
        return restored, data

    def _state_of(self, step: int) -> Path:
        return self._steps / str(step) / "state"

    def _raise_difference(self, step: int, state) -> None:
        try:
            stored = stored_state.read(self._state_of(step))
        except Exception:  # damaged, as the checkpoint is
            return
        if differs := stored_state.difference(state, stored):
            raise UserError(
                f"{self.directory}: the checkpoint of step {step} is of another config: {differs}; "
                "give the run's own config, or a new --workdir."
            )

    def _restore(self, step: int, state) -> tuple[Any, dict]:
        target = stored_state.like(state, stored_state.read(self._state_of(step)))
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        state, content = restored["state"], restored["data"]
        if "sums" not in content:  # an old checkpoint, from before checksums
            return state, content
        if content["sums"] != array_sums(state) or content["data_sum"] != _data_sum(
            content["data"]
        ):
            raise ValueError("its checksums do not match")
        return state, content["data"]

    def restore_older(self, step: int, aside: Path) -> None:
        """Moves the checkpoints after `step` to the new folder `aside`.

        Raises:
            UserError: there is no checkpoint of `step`.
        """
        steps = sorted(self._manager.all_steps())
        if step not in steps:
            there = ", ".join(map(str, steps)) or "none"
            nearest = min(steps, key=lambda one: abs(one - step), default=0)
            raise UserError(
                f"config.train.from_step={step}: must be the step of a checkpoint in {self._steps} "
                f"({there}); nearest is {nearest}."
            )
        self._set_aside([one for one in steps if one > step], aside)

    def _set_aside(self, steps: list[int], aside: Path) -> None:
        self._manager.close()
        if jax.process_index() == 0:
            aside.mkdir(parents=True, exist_ok=True)
            for step in steps:
                (self._steps / str(step)).replace(aside / str(step))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoints set aside")
        self._open()

    def wait(self) -> None:
        """Waits until the checkpoint being written is complete.

        Raises:
            UserError: it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the checkpoint being written, then closes the files.

        Raises:
            UserError: it could not be written.
        """
        self.wait()
        self._manager.close()

    @contextlib.contextmanager
    def _writing(self):
        """Turns a failed write into one line with its reason and the newest complete checkpoint."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            steps = _steps(self._steps)
            newest = f"that of step {steps[-1]} is complete" if steps else "there is none yet"
            raise UserError(
                f"{self._steps}: a checkpoint could not be written ({_reason(error)}); {newest}. "
                "Free space or fix the permissions, and run the same command again."
            ) from error


def _reason(error: Exception) -> str:
    """The system's message, where the libraries' message contains it."""
    text = " ".join(str(error).split())
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS):
        if os.strerror(code) in text:
            return os.strerror(code)
    return text[:300]


def _steps(directory: Path) -> list[int]:
    return sorted(int(p.name) for p in directory.glob("[0-9]*") if p.name.isdigit())


def _data_sum(data: dict) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())


def is_run(directory: str | Path) -> bool:
    """Whether `directory` contains a training run."""
    return (Path(directory) / "config.json").is_file()


def load_config(directory: str | Path) -> ConfigDict:
    """The config of a training run."""
    fields = json.loads((Path(directory) / "config.json").read_text())
    return ConfigDict(migrate(fields, fields.pop("schema", 1), directory))


def save_config(directory: str | Path, fields: Mapping[str, Any]) -> None:
    """Makes `directory` a training run of the plain config `fields`."""
    content = {"schema": SCHEMA, **with_kind(fields)}
    write_json(Path(directory) / "config.json", content, indent=2)


def has_checkpoint(directory: str | Path) -> bool:
    """Whether `directory` is a run to resume: one with a checkpoint."""
    return is_run(directory) and bool(_steps(Path(directory) / "checkpoints"))


def steps_done(directory: str | Path) -> int:
    """The step of a run's newest checkpoint; 0 where there is no run or no checkpoint yet."""
    if not is_run(directory):
        return 0
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        return checkpoints.latest or 0


def load_run(directory: str | Path) -> tuple[Any, ConfigDict, int]:
    """(averaged parameters as numpy, config, step) of a run's newest checkpoint.

    Raises:
        UserError: `directory` is no training run, or has no checkpoint yet.
    """
    directory = Path(directory).resolve()  # Orbax refuses relative paths
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such directory; give a run's --workdir or a saved bundle."
        )
    if not is_run(directory):
        raise UserError(
            f"{directory}: is not a run (it has no config.json); give a training run's --workdir."
        )
    config = load_config(directory)
    steps = _steps(directory / "checkpoints")
    if not steps:
        raise UserError(f"{directory}: has no checkpoint yet; train until one is written.")
    state = _restore(directory / "checkpoints" / str(steps[-1]) / "state")
    return state["ema"], config, steps[-1]


def load_critic(directory: str | Path) -> tuple[Any, ConfigDict]:
    """(averaged parameters, config) of a critic's training run.

    Raises:
        UserError: `directory` is no critic's run.
    """
    params, config, _ = load_run(directory)
    if config.kind != "critic":
        raise UserError(f"{directory}: is not a critic's run; {KINDS['critic']} trains one.")
    return params, config


def load_tokenizer(directory: str | Path) -> tuple[Any, ConfigDict, str]:
    """(parameters, config, fingerprint) of a tokenizer's run or bundle, or of a whole model's.

    Raises:
        UserError: `directory` is the run of a MaskGIT or of a critic.
    """
    if (Path(directory) / "bundle.json").is_file():
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
