"""Rows of hosts: every row of a batch is loaded, by exactly the hosts whose devices need it."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from phenaki import sharding
from phenaki.data.host_rows import HostRows, describe, host_rows, loads_per_row
from phenaki.planning import chips, compiled, markdown, meshes

ROOT = Path(__file__).parents[1]
GRIDS = Path(__file__).parent / "golden" / "process_grids.json"


def check(processes: np.ndarray) -> None:
    """Asserts that hosts load exactly what the devices of `processes` [d f s t] need."""
    positions = processes.reshape(processes.shape[0] * processes.shape[1], -1)
    total, size = 3 * len(positions), 3
    rows = {host: host_rows(total, processes, host) for host in np.unique(processes).tolist()}
    for host, mine in rows.items():
        needed = [p for p, position in enumerate(positions) if host in position]
        assert list(mine.rows) == [row for p in needed for row in range(p * size, (p + 1) * size)]
        assert mine.total == total and len(mine) == len(set(mine.rows))
    loaded = sum(len(mine) for mine in rows.values())
    assert set().union(*(mine.rows for mine in rows.values())) == set(range(total))
    assert loads_per_row(processes) == pytest.approx(loaded / total)
    if len(rows) == len(positions) * len(positions[0]):  # a device each: no host helps another
        assert loaded == total * len(positions[0])


def factorisations(count: int):
    """Every mesh (data, fsdp, sequence, tensor) of `count` devices."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    return [s for s in itertools.product(divisors, repeat=4) if math.prod(s) == count]


@pytest.mark.parametrize("per_process", [1, 2, 4])
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_every_mesh_of_a_job_loads_each_row_where_it_is_needed(processes, per_process):
    count = processes * per_process
    owners = np.arange(count) // per_process
    orders = [owners, np.random.default_rng(count).permutation(owners), owners[::-1]]
    for shape, order in itertools.product(factorisations(count), orders):
        check(order.reshape(shape))


def test_hosts_that_share_samples_load_the_same_rows():
    mesh = np.arange(4).reshape(2, 1, 1, 2)
    assert [host_rows(8, mesh, host).rows for host in range(4)] == [
        (0, 1, 2, 3), (0, 1, 2, 3), (4, 5, 6, 7), (4, 5, 6, 7)
    ]  # fmt: skip
    # Two devices a host, in an order in which the hosts of a sample alternate.
    mesh = np.array([0, 1, 0, 1, 2, 3, 2, 3]).reshape(2, 2, 1, 2)
    assert host_rows(8, mesh, 0) == host_rows(8, mesh, 1) == HostRows(8, (0, 1, 2, 3))
    mesh = np.array([0, 1, 1, 0]).reshape(2, 2, 1, 1)
    assert host_rows(8, mesh, 0).rows == (0, 1, 6, 7)


def test_what_does_not_divide_or_has_no_device_is_refused():
    mesh = np.arange(4).reshape(2, 2, 1, 1)
    for total, host in ((6, 0), (8, 4)):
        with pytest.raises(ValueError, match=f"{total} rows over 4 positions .* process {host}"):
            host_rows(total, mesh, host)


def test_a_host_names_its_rows_and_who_else_loads_them():
    mesh = np.arange(64).reshape(16, 2, 2, 1)
    line = "host 6 of 64 loads rows 48 to 63 of 512, as host 7 does"
    assert describe({"video": 512}, mesh, 6) == line
    line = describe({"video": 384, "image": 128}, mesh, 6)
    both = "rows 36 to 47 of 384 (video) and 12 to 15 of 128 (image)"
    assert line == f"host 6 of 64 loads {both}, as host 7 does"
    mesh = mesh.reshape(8, 1, 1, 8)
    line = "host 9 of 64 loads rows 64 to 127 of 512, as hosts 8, 10 to 15 do"
    assert describe({"video": 512}, mesh, 9) == line
    mesh = np.array([0, 1, 1, 2]).reshape(2, 1, 1, 2)
    line = "host 1 of 3 loads rows 0 to 3 of 4; hosts 0, 2 load some of them"
    assert describe({"video": 4}, mesh, 1) == line
    assert describe({"video": 4}, np.arange(4).reshape(4, 1, 1, 1), 2) == (
        "host 2 of 4 loads rows 2 of 4"
    )


def test_the_rows_of_a_batch_lie_on_the_devices_of_its_mesh():
    devices = [jax.devices()[index] for index in (3, 1, 7, 5, 0, 2, 6, 4)]
    mesh = sharding.make_mesh(data=2, fsdp=2, sequence=2, tensor=1, devices=devices)
    batch = {"video": {"video": np.arange(24).reshape(12, 2), "ids": np.arange(12)}}
    placed = sharding.global_batch(batch, mesh, {"video": HostRows.whole(12)})
    for name, array in placed["video"].items():
        np.testing.assert_array_equal(array, batch["video"][name])
        for shard in array.addressable_shards:
            (position,) = np.argwhere(mesh.devices == shard.device)
            first = 3 * (2 * position[0] + position[1])
            np.testing.assert_array_equal(shard.data, batch["video"][name][first : first + 3])


def test_a_batch_of_other_rows_is_refused():
    mesh = sharding.make_mesh(data=8, fsdp=1, tensor=1)
    batch = {"image": {"video": np.zeros((4, 1))}}
    with pytest.raises(ValueError, match="image: a batch of 4 rows; this host loads 8 of 8"):
        sharding.global_batch(batch, mesh, {"image": HostRows.whole(8)})


# --- layouts of TPUs

# Prints the process grid of each (topology, mesh) of its argument.
PROGRAM = """
import json, sys
from phenaki import sharding
from phenaki.planning import chips, compiled
grids = []
for name, sizes in json.loads(sys.argv[1]):
    mesh = compiled.mesh(chips.parse(name), sizes)
    grids.append(sharding.process_grid(mesh).tolist())
print(json.dumps(grids))
"""
AXES = ("data", "fsdp", "sequence", "tensor")
PODS = markdown.PODS  # of docs/pods.md
SINGLE = ("v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:4x8", "v4:2x2x1", "v4:2x2x2", "v6e:4x4")
SLICED = ("v5e:4x4*2", "v4:2x2x2*2", "v6e:16x16*2")


def layouts(names) -> list[tuple[str, dict[str, int]]]:
    """Every mesh of the topologies `names`: those of docs and plans are among them."""
    found = []
    for topology in map(chips.parse, names):
        for shape in factorisations(topology.devices):
            if shape[0] % topology.slices == 0:
                sizes = dict(zip(AXES, shape, strict=True)) | {"slices": topology.slices}
                found.append((topology.name, sizes))
    return found


def process_grids(wanted) -> list[np.ndarray]:
    """By the TPU compiler, in a process that never touches this one's devices."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = os.environ | chips.ENVIRONMENT | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(wanted)],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [np.array(grid) for grid in json.loads(done.stdout)]


def stored() -> list[tuple[str, dict[str, int], np.ndarray]]:
    """Meshes of the TPU compiler's, kept: (topology, sizes, process grid)."""
    found = []
    for one in json.loads(GRIDS.read_text()):
        shape = [one["mesh"][axis] for axis in AXES]
        found.append((one["topology"], one["mesh"], np.array(one["processes"]).reshape(shape)))
    return found


def test_kept_layouts_of_tpus_load_each_row_where_it_is_needed():
    grids = stored()
    assert len(grids) >= 8
    for name, _, processes in grids:
        assert len(np.unique(processes)) == chips.parse(name).hosts
        check(processes)
    # Chips of a host are neighbours: here no host has a row to itself.
    shared = [loads_per_row(processes) for _, sizes, processes in grids if sizes["sequence"] == 8]
    assert shared and min(shared) > 1


def test_hosts_of_gpus_follow_each_other():
    for name, sizes in layouts(["gpu:8xH100", "gpu:64xH100"]):
        check(meshes.process_grid(chips.parse(name), sizes))


@pytest.mark.skipif(not compiled.available(), reason="libtpu is not installed (extra tpu)")
def test_every_documented_pod_and_mesh_loads_each_row_where_it_is_needed():
    wanted = layouts((*PODS, *SINGLE, *SLICED))
    assert len(wanted) == 976
    for (name, _), processes in zip(wanted, process_grids(wanted), strict=True):
        assert len(np.unique(processes)) == chips.parse(name).hosts
        check(processes)
    kept = stored()
    again = process_grids([(name, sizes) for name, sizes, _ in kept])
    for (_, _, before), now in zip(kept, again, strict=True):
        np.testing.assert_array_equal(before, now)
