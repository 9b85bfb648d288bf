"""Jobs of several processes over gloo: they train as one does, and lose nothing when killed."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import conftest
import kill_runs
import numpy as np
import pytest
import tiny
from PIL import Image

from phenaki.io import checkpoint, checkpoint_manager, stored_params
from phenaki.train import logs

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT, PROGRAM = os.path.dirname(TESTS), os.path.join(TESTS, "helpers", "process.py")
DEVICES = "--xla_force_host_platform_device_count"


class Job:
    """`count` processes with `devices` each, all of one run."""

    def __init__(self, kind, workdir, count, devices=1, seconds=0.0, tokenizer=None, **fields):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        job = dict(
            kind=kind,
            workdir=str(workdir),  # HOST in it is the index of the process
            seconds=seconds,
            tokenizer=str(tokenizer),
            fields=fields,
        )
        flags = f"{DEVICES}={devices} {conftest.FAST_FLAG}"
        environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": ROOT}
        self.processes = [
            subprocess.Popen(
                [sys.executable, PROGRAM, str(port), str(count), str(index), json.dumps(job)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for index in range(count)
        ]  # fmt: skip

    def wait(self, code=0, timeout=300):
        """The outputs of the processes, once all have ended with `code`."""
        outputs = [process.communicate(timeout=timeout)[0] for process in self.processes]
        codes = [process.returncode for process in self.processes]
        assert codes == [code] * len(codes), "\n".join(outputs)
        return outputs

    def kill(self):
        """As a machine that is taken away."""
        for process in self.processes:
            process.kill()
            process.communicate()


def lines(workdir):
    return [{k: v for k, v in line.items() if "second" not in k} for line in logs.read(workdir)]


def assert_close(run, other, rtol=1e-4):
    assert len(run) == len(other)
    for one, two in zip(run, other, strict=True):
        assert one == pytest.approx(two, rel=rtol, abs=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Both stages by one process with one device."""
    root = tmp_path_factory.mktemp("alone")
    Job("cvivit", root / "cvivit", 1).wait()
    Job("maskgit", root / "maskgit", 1, tokenizer=root / "cvivit").wait()
    return root


@pytest.mark.parametrize("stage", ["cvivit", "maskgit"])
def test_two_processes_train_as_one_does(stage, alone, tmp_path):
    Job(stage, tmp_path, 2, tokenizer=alone / "cvivit", mesh=dict(data=-1, fsdp=2)).wait()
    assert_close(lines(tmp_path), lines(alone / stage))
    ours, theirs = (sorted((run / "samples").iterdir()) for run in (tmp_path, alone / stage))
    assert len(ours) == len(theirs) == 2  # written once, seen by all
    # An original next to its own reconstruction, prompts with their own videos.
    sheets = [np.asarray(Image.open(files[1])).astype(int) for files in (ours, theirs)]
    assert ours[1].suffix == ".png" and sheets[0].std() > 10
    assert abs(sheets[0] - sheets[1]).max() <= 2


def test_several_processes_encode_as_one_does_also_when_much_of_it_is_complete(tmp_path):
    source, tokenizer = kill_runs.data_set(tmp_path / "set"), kill_runs.tokenizer(tmp_path / "run")
    one, two = tmp_path / "one", tmp_path / "two"
    Job("encode", one, 1, tokenizer=tokenizer, source=str(source)).wait()
    whole = kill_runs.encoded(one)
    files = sorted(name for name in whole if name.endswith(".done"))
    assert len(files) == 20
    Job("encode", two, 2, tokenizer=tokenizer, source=str(source)).wait()
    assert kill_runs.encoded(two) == whole
    # All of one host, if files were assigned before those that are complete are removed.
    for name in files[:9]:
        (two / name).unlink()
    outputs = Job("encode", two, 2, tokenizer=tokenizer, source=str(source)).wait()
    counts = [re.search(r"(\d+) files to encode on this host of 2", text) for text in outputs]
    assert [int(found[1]) for found in counts] == [5, 4]
    assert kill_runs.encoded(two) == whole


def test_hosts_sample_each_their_own_as_a_process_alone_does(tmp_path):
    Job("own", tmp_path, 2).wait()
    for index in range(2):
        alone = tiny.phenaki().sample([f"square {index}"], seed=index)
        with np.load(tmp_path / f"{index}.npz") as own:
            np.testing.assert_array_equal(own["tokens"], alone.tokens)
            np.testing.assert_allclose(own["video"], alone.video, atol=1e-5)


def test_a_run_resumes_with_other_numbers_of_processes_and_devices(tmp_path):
    for count, devices, steps in ((4, 1, 2), (2, 1, 3), (2, 4, 5)):
        output = Job("toy", tmp_path, count, devices, steps=steps, save_every=1).wait()[0]
        assert output.splitlines()[-1] == f"{steps} {count * devices}"
    np.testing.assert_array_equal(_kernel(tmp_path), _summed(5))


def test_a_workdir_that_each_host_has_for_itself_is_refused_at_once(tmp_path):
    job = Job("toy", tmp_path / "hostHOST/run", 2, steps=4, save_every=2)
    for index, output in enumerate(job.wait(2)):
        assert f"error: --workdir={tmp_path}/host{index}/run: must be a folder that all" in output
        assert "host 1 of 2 does not see" in output
    assert not list(tmp_path.rglob("checkpoints"))
    assert not list(tmp_path.rglob(".shared-*"))
    # A folder that cannot be made is no reason to wait for it either.
    (tmp_path / "file").write_text("")
    outputs = Job("toy", tmp_path / "file/run", 2, steps=4, save_every=2).wait(2)
    assert all("file/run" in output for output in outputs)


def test_an_output_that_each_host_has_for_itself_is_refused_before_it_is_encoded(tmp_path):
    source, stage1 = kill_runs.data_set(tmp_path / "set"), kill_runs.tokenizer(tmp_path / "stage1")
    output = tmp_path / "hostHOST/codes"
    job = Job("encode", output, 2, tokenizer=stage1, source=str(source))
    for index, text in enumerate(job.wait(2)):
        assert f"error: --output={tmp_path}/host{index}/codes: must be a folder that all" in text
        assert "host 1 of 2 does not see" in text
        assert "Traceback" not in text
    assert not list(tmp_path.glob("host*/codes/*tfrecord*"))


def test_sigterm_to_one_process_stops_all_at_one_step(tmp_path):
    job = Job("toy", tmp_path / "run", 2, seconds=0.1, steps=10_000, save_every=10_000, log_every=1)
    _until(lambda: len(_lines_so_far(tmp_path / "run")) > 3, job)
    job.processes[1].send_signal(signal.SIGTERM)
    outputs = job.wait(143)
    assert all("preempted at step" in text for text in outputs)
    step = checkpoint_manager.Checkpoints(tmp_path / "run").latest
    assert all(f"preempted at step {step};" in text for text in outputs)
    final = step + 3
    Job("toy", tmp_path / "run", 2, steps=final, save_every=final, log_every=1).wait()
    np.testing.assert_array_equal(_kernel(tmp_path / "run"), _summed(final))


def test_killed_at_any_moment_nothing_is_lost(tmp_path):
    # Saving takes most of the time here, so that many kills interrupt it.
    fields = dict(steps=20, save_every=1, log_every=1)
    moments, kills = random.Random(0), 0
    for _ in range(6):
        job = Job("toy", tmp_path / "run", 2, seconds=0.05, **fields)
        began = len(_lines_so_far(tmp_path / "run"))
        _until(lambda began=began: len(_lines_so_far(tmp_path / "run")) > began, job)
        time.sleep(moments.uniform(0, 0.6))
        if all(process.poll() is not None for process in job.processes):
            job.wait()
            break
        job.kill()
        kills += 1
    else:
        Job("toy", tmp_path / "run", 2, **fields).wait()
    assert kills > 1
    np.testing.assert_array_equal(_kernel(tmp_path / "run"), _summed(20))


def _lines_so_far(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_text().splitlines() if path.is_file() else []


def _until(condition, job):
    end = time.monotonic() + 120
    while not condition() and any(process.poll() is None for process in job.processes):
        assert time.monotonic() < end
        time.sleep(0.05)


def _kernel(workdir):
    params, _, _ = checkpoint.load_run(workdir)
    del params
    step = checkpoint_manager.Checkpoints(workdir).latest
    state = stored_params._restore(workdir.resolve() / "checkpoints" / str(step) / "state")
    return state["params"]["kernel"]


def _summed(steps):
    """What `toy.run` gives after so many batches."""
    return sum(range(1, steps + 1)) + steps / 2
