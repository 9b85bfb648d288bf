"""Jobs of several processes: whose log lines are shown, and how all of them end."""

import logging
import os
import socket
import subprocess
import sys

import pytest

from phenaki import hosts

PACKAGE = os.path.dirname(hosts.__file__)


def shown(index, module, message="is %d"):
    record = logging.LogRecord("absl", logging.WARNING, module, 1, message, (7,), None)
    return hosts.Numbered(lambda: index).filter(record) and record.getMessage()


@pytest.mark.parametrize(
    ("module", "first", "fourth"),
    [
        (f"{PACKAGE}/train/loop.py", "is 7", False),
        (f"{PACKAGE}/data/records.py", "host 0: is 7", "host 3: is 7"),
        ("/home/phenaki/.venv/lib/jax/xla.py", "host 0: is 7", "host 3: is 7"),
    ],
)
def test_a_line_that_all_hosts_have_is_shown_once_and_others_have_the_hosts_number(
    module, first, fourth
):
    assert shown(0, module) == first
    assert shown(3, module) == fourth


def test_a_process_of_its_own_has_no_others_to_end():
    assert hosts.joined() is None
    hosts.end(2, "returns")
    hosts.watch()


PROGRAM = """
import os, sys, jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
from jax.experimental import multihost_utils
from phenaki import cli, hosts, sharding
from phenaki.errors import UserError

hosts.PERIOD = float(os.environ["PERIOD"])
address, index, who, error = sys.argv[1:]
index, who = int(index), int(who)
del sys.argv[1:]  # they are not flags

def main(argv):
    sharding.start(address, 2, index)
    multihost_utils.sync_global_devices("both are here")
    if index == who and error == "kill":
        os.kill(os.getpid(), 9)
    if index == who and error != "none":
        raise {"UserError": UserError, "RuntimeError": RuntimeError}[error]("the disk is gone")
    if error != "none":
        multihost_utils.sync_global_devices("never reached by the other")

cli.run(main)
"""


def run_both(who, error, tmp_path, period=hosts.PERIOD):
    """Exit codes, as a shell has them, and the error outputs of two processes."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    root = os.path.dirname(PACKAGE)
    flags = {"PYTHONPATH": root, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    flags["PERIOD"] = str(period)
    both = [
        subprocess.Popen(
            [sys.executable, program, address, str(index), str(who), error],
            env=os.environ | flags, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    # Without it both would wait for minutes, and then abort with 134.
    outputs = [process.communicate(timeout=100)[1] for process in both]
    codes = [process.returncode for process in both]
    return [code if code >= 0 else 128 - code for code in codes], outputs


@pytest.mark.parametrize(
    ("who", "error", "code"),
    [(0, "UserError", 2), (1, "UserError", 2), (1, "RuntimeError", 1), (0, "none", 0)],
)
def test_all_hosts_end_at_once_with_the_code_of_the_first(who, error, code, tmp_path):
    codes, outputs = run_both(who, error, tmp_path)
    assert codes == [code, code], outputs
    assert ("the disk is gone" in outputs[who]) == (error != "none")
    assert ("Traceback" in outputs[who]) == (error == "RuntimeError")
    assert (f"host {who} ended the job: " in outputs[1 - who]) == (error != "none")


def test_a_job_that_succeeds_ends_with_0_also_while_its_hosts_are_being_looked_at(tmp_path):
    for _ in range(3):  # the thread that looks is inside the service most of the time
        codes, outputs = run_both(0, "none", tmp_path, period=0.0)
        assert codes == [0, 0], outputs


@pytest.mark.parametrize("who", [0, 1])
def test_the_host_that_remains_ends_with_134(who, tmp_path):
    codes, outputs = run_both(who, "kill", tmp_path)
    assert codes[who] == 128 + 9
    assert codes[1 - who] == hosts.LOST == 134, outputs
    if who == 1:  # JAX aborts at once without process 0, which has its service
        assert "host 1 vanished" in outputs[0]
