"""The tokenizer of a stage-2 run: the given one at first, from then on the copy in its workdir."""

from typing import Any

from absl import logging
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from phenaki.blocks import sharding
from phenaki.errors import UserError
from phenaki.io import checkpoint, paths
from phenaki.io.paths import PathLike

# Sections of a tokenizer's config that a longer training does not change.
SAME = ("video", "tokenizer", "seed")


def resolve(given: PathLike, workdir: PathLike) -> tuple[Any, ConfigDict, str]:
    """(parameters, config, fingerprint) of the run or bundle `given`; those of the copy to resume.

    A resumed run needs its copy only. Where `given` was trained further, moved or deleted since,
    one line reports it.

    Raises:
        UserError: `given` has no tokenizer, or is another one than the copy.
    """
    copy = paths.path(workdir) / "tokenizer"
    held = checkpoint.has_checkpoint(workdir) and paths.is_file(copy / "bundle.json")
    if not sharding.agreed(held):
        return checkpoint.load_tokenizer(given)
    params, config, fingerprint = checkpoint.load_tokenizer(copy)
    try:
        _, theirs, now = checkpoint.load_tokenizer(given)
    except Exception as error:  # whatever a folder without a tokenizer raises: it is not needed
        reason = " ".join(str(error).split())[:200]
    else:
        own, other = (flatten_dict(one.to_dict(), sep=".") for one in (config, theirs))
        for path in dict.fromkeys((*own, *other)):
            if path.split(".")[0] in SAME and other.get(path) != own.get(path):
                raise UserError(
                    f"--tokenizer={given}: has another config.{path} ({other.get(path)!r}) than "
                    f"the tokenizer of this run ({own.get(path)!r}); give {copy}, or a new "
                    "--workdir."
                )
        reason = "" if now == fingerprint else "its parameters changed since, as by more training"
    if reason:
        logging.warning(
            "--tokenizer=%s: %s; the run resumes with its own copy, %s.", given, reason, copy
        )
    return params, config, fingerprint


def keep(workdir: PathLike, params: Any, config: ConfigDict, fingerprint: str) -> None:
    """Writes the copy, where there is none."""
    directory = paths.path(workdir) / "tokenizer"
    if not sharding.agreed(paths.is_file(directory / "bundle.json")):
        checkpoint.save_bundle(
            directory,
            {"tokenizer": params},
            config.to_dict(),
            kind="tokenizer",
            fingerprint=fingerprint,
        )
