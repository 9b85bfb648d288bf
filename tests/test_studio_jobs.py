"""The studio's queue: order, places, cancelling, and jobs that nobody waits for."""

import platform
import resource
import threading
from pathlib import Path

import pytest
from studio import wait

from phenaki.errors import UserError
from phenaki.studio import jobs


@pytest.fixture
def queue():
    made = jobs.Queue()
    yield made
    made.close()


class Steps:
    """Work of steps that the test allows one by one."""

    def __init__(self):
        self.allowed, self.done = threading.Semaphore(0), 0

    def __call__(self, job):
        job.listen(1)
        for number in range(100):
            self.allowed.acquire()
            job.show(step=number)
            self.done = number + 1
        return {}


def test_one_job_runs_and_the_others_know_their_places(queue):
    ran, first = [], Steps()
    running = queue.add("a", "prompt", first)
    wait(lambda: running.state == "running")
    waiting = [queue.add(who, "prompt", lambda job: ran.append(job.id)) for who in "bcb"]
    for job in waiting:
        job.listen(1)
    assert [job.snapshot()["place"] for job in waiting] == [1, 2, 3]
    queue.cancel(waiting[1])
    assert (waiting[1].state, waiting[2].place) == ("cancelled", 2)
    first.allowed.release(100)
    wait(lambda: waiting[2].over)
    assert ran == [waiting[0].id, waiting[2].id]
    assert (running.state, waiting[2].state, waiting[2].place) == ("done", "done", 0)


def test_a_running_job_ends_at_its_next_step(queue):
    work = Steps()
    job = queue.add("a", "prompt", work)
    work.allowed.release(3)
    wait(lambda: work.done == 3)
    queue.cancel(job)
    assert job.state == "running"
    work.allowed.release(97)
    wait(lambda: job.over)
    assert (job.state, work.done) == ("cancelled", 3)


def test_a_job_that_no_page_listens_to_ends(queue, monkeypatch):
    monkeypatch.setattr(jobs, "ALONE", 0.2)
    steps = threading.Semaphore(0)

    def work(job):
        while True:
            steps.acquire()
            job.show()

    job = queue.add("a", "prompt", work)
    job.listen(1)
    steps.release(50)
    wait(lambda: job.version > 50)
    assert job.state == "running"
    job.listen(-1)  # a reload comes back in time
    job.listen(1)
    steps.release()
    wait(lambda: job.version > 51)
    assert job.state == "running"
    job.listen(-1)
    wait(job.is_alone)
    steps.release()
    wait(lambda: job.over)
    assert job.state == "cancelled"


def test_a_waiting_job_of_a_closed_page_is_not_begun(queue, monkeypatch):
    monkeypatch.setattr(jobs, "ALONE", 0.05)
    ran, first = [], Steps()
    running = queue.add("a", "prompt", first)
    alone = queue.add("b", "prompt", ran.append)
    wait(lambda: running.state == "running" and alone.is_alone())
    first.allowed.release(100)
    wait(lambda: alone.over)
    assert (alone.state, ran) == ("cancelled", [])


def test_mistakes_and_defects_fail_their_job_alone(queue):
    def mistake(job):
        raise UserError("steps=0 must be at least 1.")

    def defect(job):
        raise ValueError("a defect\nof two lines")

    failed = [queue.add("a", "prompt", work) for work in (mistake, defect)]
    last = queue.add("a", "prompt", lambda job: {"takes": []})
    wait(lambda: last.over)
    assert [job.state for job in failed] == ["failed", "failed"]
    assert failed[0].snapshot()["error"] == "steps=0 must be at least 1."
    assert failed[1].snapshot()["error"] == "this should not happen: ValueError: a defect"
    assert last.snapshot()["takes"] == []


def test_an_owner_may_have_few_waiting_jobs_and_sees_only_those(queue):
    first = Steps()
    running = queue.add("a", "prompt", first)
    wait(lambda: running.state == "running")
    for _ in range(jobs.WAITING_EACH):
        queue.add("a", "prompt", lambda job: None)
    with pytest.raises(jobs.QueueFull, match="4 of yours are waiting"):
        queue.add("a", "prompt", lambda job: None)
    other = queue.add("b", "prompt", lambda job: None)
    assert queue.find("b", other.id) is other
    assert queue.find("a", other.id) is None
    assert queue.busy() == jobs.WAITING_EACH + 2
    running.cancel()
    first.allowed.release(100)


def test_finished_jobs_are_forgotten_in_time(queue):
    for _ in range(jobs.REMEMBERED_EACH + 5):
        last = queue.add("a", "prompt", lambda job: {})
        wait(lambda job=last: job.over)
    assert len(queue._jobs) <= jobs.REMEMBERED_EACH + 1
    assert queue.find("a", last.id) is last


def test_a_job_is_known_by_what_it_makes_until_it_is_over(queue):
    work = Steps()
    job = queue.add("a", "story", work, about="one")
    assert queue.makes("one") and not queue.makes("other")
    work.allowed.release(100)
    wait(lambda: job.over)
    assert not queue.makes("one")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="trims memory of glibc alone")
def test_freed_memory_goes_back_to_the_system():
    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    pieces = [bytearray(60_000) for _ in range(4000)]  # below what malloc maps by itself
    kept, held = pieces[-1], resident()
    del pieces
    assert jobs.give_back()
    assert resident() < held - 150
    del kept
