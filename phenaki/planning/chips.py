"""Accelerator topologies by name, such as v5e:16x16 or gpu:8xH100."""

import atexit
import math
import os
import re
import shutil
import tempfile
from typing import NamedTuple

from phenaki.errors import UserError


class Chip(NamedTuple):
    """Data-sheet figures of one JAX device, which is a chip except on tpu7x: half of one."""

    flops: float  # dense bfloat16, per second
    memory: float  # bytes
    link: float  # bytes per second to its neighbours, all links together, one way
    per_host: int = 4  # devices
    clock: float = 0.0  # cycles per second of a TPU
    devices: int = 1  # of a chip
    axes: int = 2  # of the grid of chips


# Clocks are those at which the matrix units reach the stated peak: 8 units of 128 x 128 products a
# cycle on v4 and v5p, 4 on v5e, 4 of 256 x 256 on v6e and each half of a tpu7x.
TPUS = {
    "v4": Chip(275e12, 32 * 2**30, 300e9, clock=1.05e9, axes=3),
    "v5e": Chip(197e12, 16 * 2**30, 200e9, clock=1.5e9),
    "v5p": Chip(459e12, 95 * 2**30, 600e9, clock=1.75e9, axes=3),
    "v6e": Chip(918e12, 32 * 2**30, 400e9, clock=1.75e9),
    "tpu7x": Chip(1153.5e12, 96 * 2**30, 600e9, per_host=8, clock=2.2e9, devices=2, axes=3),
}
GPUS = {
    "A100": Chip(312e12, 80e9, 300e9, per_host=8),
    "H100": Chip(989e12, 80e9, 450e9, per_host=8),
    "H200": Chip(989e12, 141e9, 450e9, per_host=8),
    "B200": Chip(2250e12, 180e9, 900e9, per_host=8),
}


# Types of Google Cloud, such as v5p-256, by their names: (chip, units counted per chip).
CLOUD = {"v4": ("v4", 2), "v5p": ("v5p", 2), "v5litepod": ("v5e", 1), "v6e": ("v6e", 1)}

# The TPU compiler queries the metadata of its machine unless these are set. It opens no device, so
# several processes may compile at once.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# The compiler's arguments of a run, which scripts/tpu.sh and examples/gke.yaml set: all-gathers of
# parameters overlap with matrix products in one fusion. That is the default on v5e only.
OPTIONS = (
    "--xla_tpu_enable_async_collective_fusion=true",
    "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
    "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
    "--xla_enable_async_all_gather=true",
)
# The compiler's arguments for its schedules, a file per operation; the folder follows.
SCHEDULES = (
    "--xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles --xla_jf_dump_to="
)


def plan_on_cpu() -> None:
    """Sets the environment of a process that only plans; call it before JAX is imported.

    Programs are compiled with LIBTPU_INIT_ARGS, by default `OPTIONS`, as a run compiles them.
    The TPU compiler then writes its schedules, from which `schedules` counts Pallas kernels, to a
    folder that is removed when the process ends.
    """
    folder = tempfile.mkdtemp(prefix="schedules-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    arguments = os.environ.get("LIBTPU_INIT_ARGS") or " ".join(OPTIONS)
    os.environ.update(ENVIRONMENT, LIBTPU_INIT_ARGS=f"{arguments} {SCHEDULES}{folder}")


def schedules() -> str | None:
    """The folder of `plan_on_cpu`; None where the compiler writes no schedules."""
    found = re.findall(rf"{SCHEDULES}(\S+)", os.environ.get("LIBTPU_INIT_ARGS", ""))
    return found[-1] if found else None


class Topology(NamedTuple):
    """`devices` of `chips` in `slices` groups, which the data centre's network connects."""

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
    def devices(self) -> int:
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        return -(-self.devices // self.chip.per_host)


def parse(name: str) -> Topology:
    """The topology of a name: v5e:16x16, v4:4x4x8, v5e:16x16*2 (two slices), gpu:8xH100.

    A type of Google Cloud, such as v5p-256, is the grid of 128 chips that it stands for.

    Raises:
        UserError: the name has another form, or the chip is unknown.
    """
    gpu = re.fullmatch(r"gpu:(\d+)x(\w+)", name)
    grid = _of_cloud(name)
    tpu = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?:\*(\d+))?", grid)
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
        chip = TPUS[tpu[1]]
        if len(shape) == chip.axes and min(shape):
            return Topology(grid, "tpu", tpu[1], shape, int(tpu[3] or 1), chip)
        if len(shape) != chip.axes:
            example = {2: "16x16", 3: "4x4x8"}[chip.axes]
            raise UserError(
                f"--topology={name}: a grid of {tpu[1]} has {chip.axes} numbers, such as "
                f"{tpu[1]}:{example}."
            )
    raise UserError(
        f"--topology={name}: must be a TPU with its grid (v5e:16x16, v6e:8x8, v4:4x4x8, v5p:4x4x8, "
        "tpu7x:4x4x4; *2 behind it for two slices) or a number of GPUs (gpu:8xH100); known chips: "
        f"{', '.join((*TPUS, *GPUS))}."
    )


def _of_cloud(name: str) -> str:
    """A Google Cloud type as the grid that it has by default; any other name as it is."""
    found = re.fullmatch(r"(\w+)-(\d+)", name)
    if found is None or found[1] not in CLOUD:
        return name
    kind, units = CLOUD[found[1]]
    doublings = (int(found[2]) // units).bit_length() - 1
    if int(found[2]) != units << max(doublings, 0):  # no power of two: no type
        return name
    axes = TPUS[kind].axes
    grid = [2 ** ((doublings + axis) // axes) for axis in range(axes)]
    if grid == [1, 2, 2]:
        grid = [2, 2, 1]  # of the four chips of one host
    return f"{kind}:{'x'.join(map(str, grid))}"
