"""One process writes in a folder at a time; a killed one does not keep it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from phenaki.errors import UserError
from phenaki.io import owner

HOLDER = """
import sys, time
from phenaki.io import owner
with owner.owned(sys.argv[1], "--output=" + sys.argv[1]):
    print("holds", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """A process that has the lease until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "holds\n"
    return process


def take(folder):
    with owner.owned(folder, f"--output={folder}"):
        return json.loads((folder / owner.OWNER).read_text())


def write(folder, **fields):
    """An owner file of a process on this machine, with other `fields`."""
    with owner.owned(folder, "x"):
        content = json.loads((folder / owner.OWNER).read_text())
    (folder / owner.OWNER).write_text(json.dumps(content | fields))


def test_a_second_process_is_refused_by_name_until_the_first_ends(tmp_path):
    first = hold(tmp_path)
    before = (tmp_path / owner.OWNER).read_bytes()
    with pytest.raises(UserError) as raised:
        take(tmp_path)
    line = str(raised.value)
    assert f"--output={tmp_path}: another run is writing it" in line and "\n" not in line
    assert f"process {first.pid} on host {os.uname().nodename}, since " in line
    assert (tmp_path / owner.OWNER).read_bytes() == before
    first.communicate()
    assert not os.listdir(tmp_path)
    assert take(tmp_path)["pid"] == os.getpid()
    assert not os.listdir(tmp_path)


def test_a_killed_process_does_not_keep_the_place(tmp_path):
    first = hold(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # gone, though nobody has asked yet
    assert take(tmp_path)["pid"] == os.getpid()
    first.communicate()


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path):
    write(tmp_path, pid=os.getppid(), born="1")
    assert take(tmp_path)["pid"] == os.getpid()


@pytest.fixture
def lives(tmp_path, monkeypatch):
    """The owner of another machine renews its lease as soon as somebody waits; how often."""
    path, waits = tmp_path / owner.OWNER, []

    def renew(seconds):
        waits.append(seconds)
        renewed = path.stat().st_mtime + 1
        os.utime(path, (renewed, renewed))

    monkeypatch.setattr(owner.time, "sleep", renew)
    return waits


@pytest.mark.parametrize("there", [{"host": "other"}, {"system": "another boot"}])
def test_an_owner_on_another_host_is_refused_when_it_renews_its_lease(tmp_path, there, lives):
    write(tmp_path, pid=12, since=time.time() - 7200, **there)
    path = tmp_path / owner.OWNER
    now = path.stat().st_mtime
    os.utime(path, (now, now - 60))
    with pytest.raises(UserError, match="process 12 on host .*, since 2 hours; its lease was"):
        take(tmp_path)
    assert lives == [owner.LOOKS]
    os.utime(path, (now, now - owner.STALE - 1))
    assert take(tmp_path)["pid"] == os.getpid()
    assert os.listdir(tmp_path) == [] and len(lives) == 1


def test_a_start_waits_for_the_lease_of_a_machine_that_is_gone(tmp_path, monkeypatch):
    write(tmp_path, pid=12, host="taken away")
    ages, waits = iter([60.0, 90.0, owner.STALE + 1, owner.STALE + 1]), []
    monkeypatch.setattr(owner, "_age", lambda path: next(ages))
    monkeypatch.setattr(owner.time, "sleep", waits.append)
    assert take(tmp_path)["pid"] == os.getpid()
    assert waits == [owner.LOOKS]


def test_a_number_without_a_time_of_birth_does_not_keep_the_place(tmp_path):
    """Where processes have none, another one may have the number now."""
    write(tmp_path, pid=os.getppid(), born="")
    path = tmp_path / owner.OWNER
    os.utime(path, (0, path.stat().st_mtime - owner.STALE - 1))
    assert take(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": 3, "pid": "x", "since": "y"}'])
def test_a_damaged_owner_file_is_one_that_is_not_renewed(tmp_path, content, lives):
    path = tmp_path / owner.OWNER
    path.write_text(content)
    with pytest.raises(UserError, match="another run is writing it"):
        take(tmp_path)
    os.utime(path, (0, 0))
    assert take(tmp_path)["pid"] == os.getpid()


def test_the_lease_is_renewed_and_its_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "RENEWED", 0.001)
    path = tmp_path / owner.OWNER
    with owner.owned(tmp_path, "--output=x") as lease:
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:  # until the thread has renewed it
            threading.Event().wait(0.001)
        lease.check()
        other = json.loads(path.read_text()) | {"id": "another", "pid": 7}
        path.write_text(json.dumps(other))
        with pytest.raises(UserError, match="another run is writing it .process 7 "):
            lease.check()
    assert json.loads(path.read_text()) == other  # the other's place is not freed


def test_a_renewal_under_way_at_the_end_does_not_take_the_place_again(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "RENEWED", 0.001)
    begun, answered = threading.Event(), threading.Event()
    write = owner.artifacts.write_json

    def slow(self):  # as a bucket that answers late
        begun.set()
        answered.wait(60)
        write(tmp_path / owner.OWNER, self._own)

    monkeypatch.setattr(owner.Lease, "_touch", slow)
    lease = owner.Lease(tmp_path, "--output=x")
    begun.wait(60)
    end = threading.Thread(target=lease.release)
    end.start()
    end.join(0.2)  # time enough to remove the file before the renewal writes it
    answered.set()
    end.join(60)
    assert not lease._renewal.is_alive()
    assert not (tmp_path / owner.OWNER).exists()


def test_one_of_many_that_start_at_once_has_the_place(tmp_path):
    start, taken, release = threading.Barrier(8), threading.Semaphore(0), threading.Event()

    def compete():
        start.wait()
        try:
            with owner.owned(tmp_path, "--output=x"):
                taken.release()
                release.wait()
        except UserError:
            refused.release()

    refused = threading.Semaphore(0)
    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(7):
        refused.acquire()
    taken.acquire()
    assert not taken.acquire(blocking=False)
    release.set()
    for thread in threads:
        thread.join()


def test_only_the_first_process_of_a_job_has_the_lease(tmp_path, monkeypatch):
    class Job:
        process_id = 1

    monkeypatch.setattr(owner.hosts, "joined", Job)
    with owner.owned(tmp_path, "--output=x") as lease:
        assert lease is None and os.listdir(tmp_path) == []


def test_an_end_that_closes_nothing_frees_the_place(tmp_path):
    with owner.owned(tmp_path, "--output=x"):
        for last in list(owner.hosts.AT_END):
            last()
        assert os.listdir(tmp_path) == []
    assert not owner.hosts.AT_END
