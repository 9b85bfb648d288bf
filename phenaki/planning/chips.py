"""Accelerator topologies by name, such as v5e:16x16 or gpu:8xH100."""

import math
import os
import re
from typing import NamedTuple

from phenaki.errors import UserError


class Chip(NamedTuple):
    """Data-sheet figures of a chip."""

    flops: float  # dense bfloat16, per second
    memory: float  # bytes
    link: float  # bytes per second to its neighbours, all links together, one way
    per_host: int = 4  # chips


TPUS = {
    "v4": Chip(275e12, 32 * 2**30, 300e9),
    "v5e": Chip(197e12, 16 * 2**30, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 600e9),
    "v6e": Chip(918e12, 32 * 2**30, 400e9),
}
GPUS = {
    "A100": Chip(312e12, 80e9, 300e9, per_host=8),
    "H100": Chip(989e12, 80e9, 450e9, per_host=8),
    "H200": Chip(989e12, 141e9, 450e9, per_host=8),
    "B200": Chip(2250e12, 180e9, 900e9, per_host=8),
}


# The TPU compiler queries the metadata of its machine unless these are set. It opens no device, so
# several processes may compile at once.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def plan_on_cpu() -> None:
    """Sets the environment of a process that only plans; call it before JAX is imported."""
    os.environ.update(ENVIRONMENT)


class Topology(NamedTuple):
    """`chips` devices in `slices` groups, which the data centre's network connects."""

    name: str
    platform: str  # tpu, gpu
    kind: str
    shape: tuple[int, ...]
    slices: int
    chip: Chip

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def hosts(self) -> int:
        return -(-self.chips // self.chip.per_host)


def parse(name: str) -> Topology:
    """The topology of a name: v5e:16x16, v4:4x4x8, v5e:16x16*2 (two slices), gpu:8xH100.

    Raises:
        UserError: the name has another form, or the chip is unknown.
    """
    gpu = re.fullmatch(r"gpu:(\d+)x(\w+)", name)
    tpu = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?:\*(\d+))?", name)
    if gpu and gpu[2] in GPUS and int(gpu[1]):
        chip = GPUS[gpu[2]]
        count = int(gpu[1])
        hosts = max(count // chip.per_host, 1)
        if count > chip.per_host and count % chip.per_host:
            raise UserError(
                f"--topology={name}: GPUs come {chip.per_host} to a host; nearest is "
                f"gpu:{hosts * chip.per_host}x{gpu[2]}."
            )
        return Topology(name, "gpu", gpu[2], (count // hosts,), hosts, chip)
    if tpu and tpu[1] in TPUS:
        shape = tuple(map(int, tpu[2].split("x")))
        axes = 3 if tpu[1] in ("v4", "v5p") else 2
        if len(shape) == axes and min(shape):
            return Topology(name, "tpu", tpu[1], shape, int(tpu[3] or 1), TPUS[tpu[1]])
    raise UserError(
        f"--topology={name}: must be a TPU with its grid (v5e:16x16, v6e:8x8, v4:4x4x8, v5p:4x4x8; "
        "*2 behind it for two slices) or a number of GPUs (gpu:8xH100); known chips: "
        f"{', '.join((*TPUS, *GPUS))}."
    )
