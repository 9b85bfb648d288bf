"""Freed memory is kept for the next call of a program, unless the user says otherwise."""

import json
import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import pytest

from phenaki.io import heap

ROOT = Path(__file__).parents[1]
PAGES = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")
# A thread fills 64 MiB and frees them, as XLA's threads do at every call; prints its page faults.
PROGRAM = f"""
import json, resource, sys, threading
from phenaki.io import heap
done = heap.keep_freed() if sys.argv[1] == "keep" else {{}}
def call():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * {64 * 2**20}
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
faults = []
thread = threading.Thread(target=call)
thread.start()
thread.join()
print(json.dumps([done, faults[-1]]))
"""


def run(argument, **variables):
    ours = {name for _, name, _ in heap.OPTIONS.values()} | {"GLIBC_TUNABLES"}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-c", PROGRAM, argument]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_a_thread_allocates_freed_memory_again_without_page_faults():
    done, kept = run("keep")
    _, returned = run("leave")
    assert done == {variable: value for value, variable, _ in heap.OPTIONS.values()}
    assert kept < PAGES / 10 < PAGES / 2 < returned


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
@pytest.mark.parametrize(
    "given", [dict(MALLOC_ARENA_MAX="8"), dict(GLIBC_TUNABLES="glibc.malloc.arena_max=8")]
)
def test_values_of_the_user_are_kept(given):
    done, _ = run("keep", **given)
    assert set(done) == {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}


@pytest.mark.parametrize("failing", [OSError, TypeError, None])
def test_other_c_libraries_are_left_alone(monkeypatch, failing):
    def library(name):
        if failing:
            raise failing
        return types.SimpleNamespace(mallopt=lambda option, value: 1)

    monkeypatch.setattr(heap.ctypes, "CDLL", library)
    assert heap.keep_freed() == {}


def test_machines_with_an_accelerator_are_left_alone(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(heap, "ACCELERATORS", ("null",))
    assert heap.keep_freed() == {}
