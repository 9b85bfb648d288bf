"""What the C library does with freed memory, set once per process for JAX on CPUs.

XLA's CPU backend allocates the buffers of a program anew at every call. By default glibc returns
such large blocks to the system, which has to map and zero every page of the next call again: a
fifth of the CPU time of a train step. Kept blocks cost nothing, and a process holds its peak.
"""

import ctypes
import os
from pathlib import Path

# M_... of mallopt(3) -> (value, the variable by which a user sets it, its name in GLIBC_TUNABLES).
OPTIONS = {
    # One arena: the others map each large block by itself, whatever the options below are, and XLA
    # allocates in threads of its own.
    -8: (1, "MALLOC_ARENA_MAX", "glibc.malloc.arena_max"),
    -4: (0, "MALLOC_MMAP_MAX_", "glibc.malloc.mmap_max"),  # blocks of their own: none
    -1: (-1, "MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold"),  # what is kept: all
}

# Files of TPUs and GPUs: there XLA's buffers are on the device, and loaders need many arenas.
ACCELERATORS = ("accel[0-9]*", "vfio/[0-9]*", "nvidia[0-9]*", "kfd")


def keep_freed() -> dict[str, int]:
    """Has glibc keep freed memory for the next allocation: {variable: value} of what was set.

    Call it before threads are started, which would have arenas already. Values that the user has
    set are kept; other C libraries, and machines with a TPU or GPU, are left alone.
    """
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        if any(file for pattern in ACCELERATORS for file in Path("/dev").glob(pattern)):
            return {}
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return {}
    if not hasattr(libc, "gnu_get_libc_version"):  # other libraries' options have other numbers
        return {}
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    done = {}
    for option, (value, variable, tunable) in OPTIONS.items():
        if variable not in os.environ and tunable not in tunables and libc.mallopt(option, value):
            done[variable] = value
    return done
