"""Commands keep what they compile, wherever the folder goes, and fail for nothing about it."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import pytest

from phenaki.io import compilation_cache

COMMAND = """
import collections, json
from phenaki import cli

def main(argv):
    import jax
    counts = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
    result = jax.jit(lambda x: x * 3 + 1)(jax.numpy.arange(4)).tolist()
    names = ("cache_hits", "cache_misses")
    print(json.dumps([result, *(counts[f"/jax/compilation_cache/{name}"] for name in names)]))

cli.run(main)
"""


@pytest.fixture
def command(tmp_path):
    """Runs a command: (loaded programs, stored programs, stderr); its variables are `changes`."""
    file = tmp_path / "command.py"
    file.write_text(COMMAND)

    def run(before: str = "", **changes: object):
        environment = {k: v for k, v in os.environ.items() if "CACHE" not in k}
        environment |= {name: str(value) for name, value in changes.items()}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        shell = f"{before} exec {sys.executable} {file}"
        done = subprocess.run(shell, shell=True, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        result, hits, misses = json.loads(done.stdout)
        assert result == [1, 4, 7, 10]
        return hits, misses, done.stderr

    return run


def stored(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_the_second_start_compiles_nothing_also_from_a_copy_or_after_damage(command, tmp_path):
    home, copy = tmp_path / "home", tmp_path / "copy"
    hits, misses, stderr = command(HOME=home)
    assert (hits, stderr) == (0, "") and misses > 0
    files = stored(home)
    assert files and all(home / ".cache/phenaki" in file.parents for file in files)
    shutil.copytree(home / ".cache", copy)
    assert command(XDG_CACHE_HOME=copy, HOME="/dev/null") == (misses, 0, "")
    for file in stored(copy):  # as a full disk or a kill leaves it
        file.write_bytes(file.read_bytes()[:20])
    assert command(XDG_CACHE_HOME=copy) == (0, misses, "")
    assert command(XDG_CACHE_HOME=copy) == (misses, 0, "")


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(command, tmp_path):
    assert command(HOME="/dev/null") == (0, 0, "")
    *_, stderr = command("ulimit -f 0;", XDG_CACHE_HOME=tmp_path)
    (line,) = stderr.splitlines()  # not one for each program
    assert str(tmp_path) in line and "cannot be stored" in line and compilation_cache.SWITCH in line
    *_, stderr = command(JAX_COMPILATION_CACHE_DIR="/dev/null/programs")
    assert len(stderr.splitlines()) == 1 and "/dev/null/programs" in stderr


def test_the_users_own_choices_are_kept(command, tmp_path):
    home, own = tmp_path / "home", tmp_path / "own"
    assert command(HOME=home, JAX_ENABLE_COMPILATION_CACHE="false") == (0, 0, "")
    assert not stored(home)
    _, misses, _ = command(HOME=home, JAX_COMPILATION_CACHE_DIR=own)
    assert misses == len(stored(own)) > 0 and not stored(home)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """The environment of a user with an empty cache folder; restored afterwards."""
    names = (compilation_cache.FOLDER, compilation_cache.SWITCH, *compilation_cache.SETTINGS)
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax")
    with warnings.catch_warnings():
        yield tmp_path


def test_a_disk_that_is_nearly_full_is_left_alone(fresh, monkeypatch):
    usage = namedtuple("usage", "free")
    for free in (compilation_cache.LEAST_FREE - 1, compilation_cache.LEAST_FREE):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(free))
        compilation_cache.enable()
        wanted = free == compilation_cache.LEAST_FREE
        assert (compilation_cache.FOLDER in os.environ) is wanted


def test_what_was_not_used_for_longest_is_removed(fresh, monkeypatch):
    folder = compilation_cache.default_folder()
    for root in (folder, folder.parent / "of another processor"):
        root.mkdir(parents=True)
        for age in range(3):
            file = root / f"{age}"
            file.write_bytes(bytes(100))
            os.utime(file, (10**9 - age, 0))  # the time of use counts, not that of writing
    monkeypatch.setattr(compilation_cache, "LARGEST", 450)
    compilation_cache.enable()
    assert [file.name for file in stored(fresh)] == ["0", "1", "0", "1"]


def test_processors_with_other_instructions_have_folders_of_their_own(fresh, monkeypatch):
    before = compilation_cache.default_folder()
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: read(path).replace("sse2", "sse9"))
    assert compilation_cache.default_folder() != before
    assert compilation_cache.default_folder().parent == before.parent
