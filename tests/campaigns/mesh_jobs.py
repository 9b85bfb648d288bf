"""Trains and samples on meshes that span processes, compared with one process (long).

pytest tests/campaigns/mesh_jobs.py    minutes per job on two cores
"""

import jax
import numpy as np
import pytest
import test_processes
from test_processes import Job, assert_close, lines

from phenaki.io import checkpoint

alone = test_processes.alone  # the fixture

# (data, fsdp, sequence, tensor) of four devices. Both axes of a mesh span four processes; the first
# spans two processes, and with alternating devices the second.
SHAPES = [(2, 1, 2, 1), (1, 2, 1, 2)]
ALONE = (4, 1, 1, 1)


def distance(run, other):
    """Of the parameters of two runs, as a part of their norm; printed.

    Not element by element: Adam makes a full step of a gradient that is all rounding.
    """
    got, expected = (jax.tree.leaves(checkpoint.load_run(path)[0]) for path in (run, other))
    apart = sum(np.square(a - b).sum() for a, b in zip(got, expected, strict=True))
    part = np.sqrt(apart / sum(np.square(b).sum() for b in expected))
    print(f"{run.name}: parameters differ by {part:.1e} of their norm")
    return part


@pytest.fixture(scope="module")
def one_process(alone, tmp_path_factory):
    """Two steps of both stages, and samples, by one process with four devices."""
    root = tmp_path_factory.mktemp("meshes")
    _train_meshes(root, 1, 4, alone, [ALONE])
    return root


def _train_meshes(root, count, devices, alone, shapes, order=(0, 1, 2, 3)):
    fields = dict(shapes=shapes, order=order, steps=2)
    return Job("meshes", root, count, devices, tokenizer=alone / "cvivit", **fields).wait(
        timeout=1200
    )


@pytest.mark.parametrize(
    ("count", "order"), [(4, (0, 1, 2, 3)), (2, (0, 1, 2, 3)), (2, (0, 2, 1, 3))]
)
def test_processes_train_and_sample_as_one_does_whichever_axis_spans_them(
    count, order, alone, one_process, tmp_path
):
    outputs = _train_meshes(tmp_path, count, 4 // count, alone, SHAPES, order)
    assert all(f"host {host} of {count} loads rows" in text for host, text in enumerate(outputs))
    first = "x".join(map(str, ALONE))
    for name in ("x".join(map(str, shape)) for shape in SHAPES):
        for stage in ("cvivit", "maskgit"):
            ours, theirs = tmp_path / f"{stage}_{name}", one_process / f"{stage}_{first}"
            assert_close(lines(ours), lines(theirs))
            assert distance(ours, theirs) < 1e-3
        one = np.load(one_process / f"sample_{first}.npz")
        several = np.load(tmp_path / f"sample_{name}.npz")
        np.testing.assert_array_equal(one["tokens"], several["tokens"])
        np.testing.assert_allclose(one["video"], several["video"], atol=1e-5)


def test_a_run_resumes_on_other_processes_and_another_mesh_as_one_process_trains(alone, tmp_path):
    steps = dict(save_every=2)
    mesh = dict(data=2, sequence=2)
    Job("cvivit", tmp_path, 4, mesh=mesh, train=dict(steps=2, **steps)).wait()
    mesh = dict(data=1, fsdp=2, sequence=1, tensor=2)
    Job("cvivit", tmp_path, 2, 2, mesh=mesh, train=dict(steps=4, **steps)).wait()
    assert_close(lines(tmp_path), lines(alone / "cvivit"))
    assert distance(tmp_path, alone / "cvivit") < 1e-3
