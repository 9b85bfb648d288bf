"""The checkpoints of a training run, by Orbax with our checksums: save, restore, set aside."""

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import logging
from etils import epy
from jax.experimental import multihost_utils

from phenaki.errors import UserError, bucket_reason
from phenaki.io import failures, paths, stored_state
from phenaki.io.checkpoint_steps import COMMITTED, check_name, complete_steps, mounts_bucket
from phenaki.io.checksums import array_sums
from phenaki.io.paths import AnyPath, PathLike

with epy.lazy_imports():  # half a second, for what loads and stores only
    import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one training run, `directory`/checkpoints/<step>; keeps the last `keep`.

    Every checkpoint contains checksums: restoring one that is damaged falls back to the one before.
    """

    def __init__(self, directory: PathLike, keep: int = 2):
        failures.hush_orbax()  # our one line is enough
        check_name(directory)
        self.directory = paths.absolute(directory)
        self._steps = self.directory / "checkpoints"
        self._keep = keep
        with self._writing():
            self._open()

    def _open(self) -> None:
        # A rename on a mounted bucket copies every object, one after another: Orbax's own choice
        # would be to rename, as on a disk. A checkpoint there is complete with its commit file.
        mounted = mounts_bucket(self._steps)
        self._by_file = mounted or paths.is_remote(self._steps)
        by_file = ocp.path.atomicity.CommitFileTemporaryPath if mounted else None
        self._manager = ocp.CheckpointManager(
            self._steps,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                enable_async_checkpointing=True,
                temporary_path_class=by_file,
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
            if self._by_file:
                self._remove_half(step)
            self._manager.save(step, args=items)

    def _remove_half(self, step: int) -> None:
        """Removes what a kill left of the checkpoint of `step`, where no rename completes one."""
        folder = self._steps / str(step)
        half = jax.process_index() == 0 and folder.exists()
        if half and not paths.is_file(folder / COMMITTED):
            paths.remove_tree(folder)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("half-written checkpoint removed")

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
                if why := failures.lack(error):
                    raise UserError(
                        f"{self.directory}: the checkpoint of step {step} cannot be read ({why})."
                    ) from error
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

    def _state_of(self, step: int) -> AnyPath:
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
        with failures.quiet_ends():
            restored = self._manager.restore(step, args=items)
        state, content = restored["state"], restored["data"]
        if not isinstance(content, dict):
            raise ValueError("its data is no dictionary")
        if "sums" not in content:  # an old checkpoint, from before checksums
            return state, content
        if content["sums"] != array_sums(state) or content["data_sum"] != _data_sum(
            content["data"]
        ):
            raise ValueError("its checksums do not match")
        return state, content["data"]

    def restore_older(self, step: int, aside: AnyPath) -> None:
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

    def _set_aside(self, steps: list[int], aside: AnyPath) -> None:
        self._manager.close()
        if jax.process_index() == 0:
            aside.mkdir(parents=True, exist_ok=True)
            for step in steps:
                target = aside / str(step)
                while target.exists():  # the same step was damaged before
                    target = target.with_name(f"{target.name}_")
                moved = self._steps / str(step)
                if isinstance(moved, Path):  # checkpoints/ may be a link to another disk
                    shutil.move(moved, target)
                else:
                    moved.replace(target)
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
        except UserError:
            raise
        except Exception as error:  # a bucket's libraries raise anything
            known = isinstance(error, OSError | ValueError | RuntimeError) or bucket_reason(error)
            if not known:
                raise
            raise UserError(
                f"{self._steps}: a checkpoint could not be written ({failures.reason(error)}); "
                f"{self._newest()}. Free space or fix the permissions, and run the same command "
                "again."
            ) from error

    def _newest(self) -> str:
        try:
            steps = complete_steps(self._steps)
        except Exception:  # a bucket that does not answer
            return "those before it are untouched"
        return f"that of step {steps[-1]} is complete" if steps else "there is none yet"


def _data_sum(data: dict) -> int:
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())
