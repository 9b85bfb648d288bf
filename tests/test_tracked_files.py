"""What is committed says nothing of the machine that it was made on."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from phenaki.io import checkpoint

ROOT = Path(__file__).parents[1]
# Folders in which people and their programs work, with the name of one below.
MACHINE = re.compile(rb"(?<![\w./-])/(?:home|Users|root|work|mnt/disks|tmp)/[\w.-]+[/\w.-]*")
# Invented ones, in tests of messages and of archives; nothing of this machine.
INVENTED = {b"/home/phenaki/.venv/lib/jax/xla.py", b"/tmp/outside.jpg"}


def tracked() -> list[Path]:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if run.returncode:
        pytest.skip("not a git repository")
    return [ROOT / name for name in run.stdout.decode().split("\0") if name]


def test_no_tracked_file_holds_an_absolute_path():
    files = tracked()
    assert ROOT / "checkpoints/laptop/params/commit_success.txt" in files
    own = {str(place).encode() for place in (ROOT, Path.home()) if len(place.parts) > 2}
    found = {}
    for path in files:
        if path == Path(__file__) or not (path.is_symlink() or path.is_file()):
            continue
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        seen = {match for match in MACHINE.findall(content) if match not in INVENTED}
        seen |= {place for place in own if place in content}
        if seen:
            found[str(path.relative_to(ROOT))] = seen
    assert not found


def test_a_saved_bundle_holds_no_absolute_path(tmp_path):
    folder = tmp_path / "a_folder_of_this_machine"
    params = {"tokenizer": {"kernel": np.ones((4, 3), np.float32)}}
    fields = {"kind": "tokenizer", "video": {}, "tokenizer": {}}
    for _ in range(2):  # the second replaces it
        checkpoint.save_bundle(folder, params, fields)
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) > 4
        for path in files:
            assert b"a_folder_of_this_machine" not in path.read_bytes(), path
        loaded, _, _ = checkpoint.load_bundle(folder)
        np.testing.assert_array_equal(loaded["tokenizer"]["kernel"], 1.0)
