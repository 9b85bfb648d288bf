"""The directory of a training run: its config.json, and which run it may continue."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from phenaki.errors import UserError
from phenaki.io.checkpoint import is_run, load_config, save_config

# A resumed run may change how it trains, but not what it trains.
FIXED = (
    "kind", "video", "tokenizer", "model", "text", "critic", "fingerprint", "generator", "seed",
)  # fmt: skip


def claim(workdir: str | Path, fields: Mapping[str, Any]) -> Path:
    """Makes `workdir` the run of the plain config `fields`, or checks that it already is.

    The config.json of a run stays as it is: see `record`.

    Raises:
        UserError: it contains another run or something else, or is no directory.
    """
    if "://" in os.fspath(workdir):
        raise UserError(
            f"--workdir={workdir}: must be a directory; mount a bucket on every host, for example "
            "by gcsfuse BUCKET /mnt/BUCKET, and give /mnt/BUCKET/RUN."
        )
    workdir = Path(workdir)
    if is_run(workdir):
        before = load_config(workdir).to_dict()
        now = json.loads(json.dumps(fields))
        for name in FIXED:
            if before.get(name) != now.get(name):
                raise UserError(
                    f"{workdir}: holds a run with another config.{name} ({before.get(name)}); "
                    "give the same config, or a new --workdir."
                )
    elif workdir.is_dir() and any(workdir.iterdir()) and (workdir / "checkpoints").exists():
        raise UserError(f"{workdir}: has checkpoints but no config.json; give a new --workdir.")
    workdir.mkdir(parents=True, exist_ok=True)
    if not is_run(workdir):
        record(workdir, fields)
    return workdir


def record(workdir: Path, fields: Mapping[str, Any]) -> None:
    """Writes config.json; every process reads it, the first one writes."""
    if jax.process_index() == 0:
        save_config(workdir, fields)
