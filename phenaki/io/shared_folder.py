"""Whether all hosts of a job see one output folder, and not each its own."""

import secrets
import time

import numpy as np

from phenaki import hosts
from phenaki.errors import UserError
from phenaki.io import outputs, paths
from phenaki.io.paths import AnyPath, PathLike

APPEARS = 20.0  # seconds that a new file may take to be seen by another host


def check_seen(flag: str, directory: PathLike) -> None:
    """Makes the folder of `--flag`, and checks that every host sees what process 0 writes there.

    Every process of the job calls it; it does nothing for a process that is alone.

    Raises:
        UserError: a host does not see it.
    """
    if not hosts.joined():
        return
    import jax  # late: most commands need no JAX
    from jax.experimental import multihost_utils

    directory = paths.path(directory)
    first, name = jax.process_index() == 0, secrets.token_hex(8)
    # A name in 16 random hex digits, those of process 0.
    digits = np.frombuffer(name.encode(), np.uint8)
    digits = np.asarray(multihost_utils.broadcast_one_to_all(digits))
    probe = directory / f".shared-{digits.astype(np.uint8).tobytes().decode()}"
    failed = _write(flag, probe) if first else None
    multihost_utils.sync_global_devices(f"{flag} probe written")
    seen = np.asarray(multihost_utils.process_allgather(np.array(_appears(probe)))).reshape(-1)
    if first:
        probe.unlink(missing_ok=True)
    if failed is not None:  # only now: the other hosts wait for what is above
        raise failed
    if not seen.all():
        blind = ", ".join(str(host) for host in np.flatnonzero(~seen))
        raise UserError(
            f"--{flag}={directory}: must be a folder that all hosts see; host {blind} of "
            f"{len(seen)} does not see what host 0 writes there. Give a shared file system, or "
            "gs://BUCKET/RUN."
        )


def _write(flag: str, path: AnyPath) -> Exception | None:
    try:
        outputs.make(flag, path.parent)
        path.write_text("")
    except Exception as error:  # a bucket's libraries raise anything
        return error
    return None


def _appears(path: AnyPath) -> bool:
    """Whether `path` is there within `APPEARS` seconds: shared file systems cache listings."""
    end = time.monotonic() + APPEARS
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
