"""Where the checkpoints of a run lie, and which of them are complete."""

import os
import re

from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.io.paths import PathLike

COMMITTED = "commit_success.txt"  # Orbax's, of a checkpoint that is not renamed
MOUNTS = "/proc/mounts"
# In local paths: Orbax takes the first for a pattern of names, TensorStore the second for "/", and
# both take a folder "gs:" for a bucket. They write there, and nobody can read it.
_UNREADABLE = re.compile(r"[\[\]]|\\|(?<=/)(?:gs|s3):(?=/|$)")


def check_name(directory: PathLike) -> None:
    """Raises `UserError` for a local folder below which checkpoints could not be read again."""
    place = paths.absolute(directory)
    if paths.is_remote(place) or not (found := _UNREADABLE.search(str(place))):
        return
    nearest = _UNREADABLE.sub(
        lambda part: part[0].rstrip(":") if len(part[0]) > 1 else "_", str(place)
    )
    raise UserError(
        f"{place}: has {found[0]!r} in its name, and Orbax cannot read a checkpoint below such a "
        f"folder; nearest is {nearest}."
    )


def complete_steps(directory: PathLike) -> list[int]:
    """The steps of the complete checkpoints in a run's folder `directory`, ascending."""
    steps = sorted(int(name) for name in paths.names(directory) if re.fullmatch(r"[0-9]+", name))
    if paths.is_remote(directory) or mounts_bucket(directory):  # elsewhere a rename completes one
        folder = paths.path(directory)
        steps = [step for step in steps if paths.is_file(folder / str(step) / COMMITTED)]
    return steps


def mounts_bucket(directory: PathLike) -> bool:
    """Whether a folder of this machine lies in a bucket that gcsfuse mounts."""
    if paths.is_remote(directory) or not os.path.exists(MOUNTS):
        return False
    wanted = os.path.realpath(directory)
    with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split(" ")[1:3] for line in file]
    # A blank in a name is \040 there. Of nested mounts the innermost counts.
    found = [(place.replace("\\040", " "), kind) for place, kind in mounts]
    inside = [(len(p), kind) for p, kind in found if f"{wanted}/".startswith(f"{p.rstrip('/')}/")]
    return bool(inside) and "gcsfuse" in max(inside)[1]
