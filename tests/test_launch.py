"""Launching: what scripts/tpu.sh sends, run on a pretended worker; who joins whom."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phenaki import sharding
from phenaki.errors import UserError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/tpu.sh"


def tpu(*arguments, **environment):
    return subprocess.run(
        [SCRIPT, *arguments],
        env=os.environ | environment,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def worker(tmp_path):
    """A directory with a gcloud that runs what it is sent right there, as one worker would."""
    home = tmp_path / "home"
    (home / "phenaki/.venv/bin").mkdir(parents=True)
    (home / "phenaki/.venv/bin/python").symlink_to(sys.executable)
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        "#!/usr/bin/env bash\ncd $WORKER\n"
        'for word; do [[ $word == --command=* ]] && exec bash -c "${word#--command=}"; done\n'
    )
    gcloud.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return home / "phenaki", lambda *words, **more: tpu(*words, PATH=path, WORKER=str(home), **more)


def wait_for(path):
    for _ in range(300):
        if path.is_file() and path.read_text().strip():
            return path.read_text().strip()
        time.sleep(0.1)
    raise AssertionError(f"no {path}")


def test_a_dry_run_prints_what_it_would_send():
    done = tpu("status", "pod", "us-central2-b", DRY_RUN="1", PROJECT="lab")
    words = shlex.split(done.stdout)
    assert words[:7] == [
        "gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=us-central2-b",
    ]  # fmt: skip
    assert words[7] == "--worker=all" and words[-1] == "--project=lab"


def test_a_command_runs_with_its_log_and_code(worker):
    home, call = worker
    program = "import sys; print(*sys.argv[1:]); sys.exit(3)"
    done = call("start", "pod", "zone", "python", "-c", program, "it's", "a b", "$HOME")
    assert done.returncode == 0 and "started" in done.stdout, done.stderr
    assert wait_for(home / "logs/code") == "3"
    assert (home / "logs/log").read_text() == "it's a b $HOME\n"
    assert "it's a b $HOME" in call("logs", "pod", "zone", "5").stdout
    time.sleep(0.2)
    assert "ended with 3" in call("status", "pod", "zone").stdout


def test_starting_twice_runs_once_and_stop_terminates(worker):
    home, call = worker
    program = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
        "print('on', flush=True)\ntime.sleep(60)"
    )
    call("start", "pod", "zone", "python", "-c", program)
    assert wait_for(home / "logs/log") == "on"
    assert "runs already" in call("start", "pod", "zone", "python", "-c", program).stdout
    assert "runs" in call("status", "pod", "zone").stdout
    assert "stopped" in call("stop", "pod", "zone", GRACE="20").stdout
    assert (home / "logs/log").read_text() == "on\nsaved\n"
    assert wait_for(home / "logs/code") == "0"


@pytest.mark.parametrize(
    "words", [(), ("fly", "pod", "zone"), ("start", "pod"), ("start", "pod", "zone")]
)
def test_mistakes_are_one_line(words):
    done = tpu(*words, DRY_RUN="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck():
    subprocess.run(["shellcheck", SCRIPT], check=True)


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        ({}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t1v-0,t1v-1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "t1v-0,t1v-1", "JAX_PLATFORMS": "cpu"}, False),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "t1v-0"}, True),
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "3"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),
    ],
)
def test_who_joins_a_job_by_itself(environment, joins):
    assert sharding.in_job(environment) is joins


@pytest.mark.parametrize("given", [("host:1", 0, -1), ("", 2, 0), ("host:1", 2, -1)])
def test_a_job_is_described_whole(given):
    with pytest.raises(UserError, match="go together"):
        sharding.start(*given)


def test_an_index_beyond_the_processes_is_refused():
    with pytest.raises(UserError, match="--process=5: must be 0 to 1"):
        sharding.start("host:1", 2, 5)


def test_a_process_says_that_it_waits_for_the_others(monkeypatch, capsys):
    monkeypatch.setattr(sharding.jax.distributed, "initialize", lambda *_: time.sleep(0.35))
    for name in ("watch", "number_logs"):
        monkeypatch.setattr(sharding.hosts, name, lambda *_: None)
    monkeypatch.setattr(sharding.hosts, "WAITS", 0.1)
    sharding.start("host:1", 2, 0)
    first, *waits = capsys.readouterr().err.splitlines()
    assert first == "process 0 of 2: joining at host:1"
    line = r"waits for the other processes of 2 at host:1, \d+ s so far"  # on a busy machine more
    assert waits and all(re.fullmatch(line, wait) for wait in waits)
    time.sleep(0.3)
    assert capsys.readouterr().err == ""  # not once they have come


def test_two_processes_join_by_flags(tmp_path):
    program = (
        "import sys, jax\n"
        "jax.config.update('jax_cpu_collectives_implementation', 'gloo')\n"
        "from phenaki import sharding\n"
        "sharding.start(sys.argv[1], 2, int(sys.argv[2]))\n"
        "sharding.start(sys.argv[1], 2, int(sys.argv[2]))\n"
        "print(jax.process_count(), len(jax.devices()))\n"
    )
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, address, str(index)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert out.split() == ["2", "2"], err


@pytest.fixture
def other():
    """A program that has nothing to do with any job."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def job_file(home, lines):
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs/code").unlink(missing_ok=True)
    (home / "logs/pid").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("lines", [(), ("0f-1 77", "python train.py"), ("", "")])
def test_an_id_of_another_program_is_no_job(lines, worker, other):
    home, call = worker
    job_file(home, (other.pid, *lines))
    assert "idle" in call("status", "pod", "zone").stdout
    assert "idle" in call("stop", "pod", "zone", GRACE="1").stdout
    assert other.poll() is None
    assert "started" in call("start", "pod", "zone", "true").stdout
    assert wait_for(home / "logs/code") == "0"
    assert other.poll() is None


def test_a_job_of_an_earlier_boot_with_the_same_command_is_over(worker):
    home, call = worker
    call("start", "pod", "zone", "sleep", "60")
    pid, since, command = wait_for(home / "logs/pid").splitlines()
    assert command.strip() == "sleep 60"
    assert "runs" in call("status", "pod", "zone").stdout
    job_file(home, (pid, f"{since}1", command))
    assert "idle" in call("status", "pod", "zone").stdout
    job_file(home, (pid,))  # as earlier versions wrote it
    assert "runs already" in call("start", "pod", "zone", "true").stdout
    assert "stopped" in call("stop", "pod", "zone", GRACE="1").stdout
    assert "idle" in call("status", "pod", "zone").stdout
