"""The Dockerfile is one that its linter accepts, and installs what pyproject.toml has."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker/Dockerfile"


def lint(path):
    """The exit code and complaints of hadolint."""
    command = [Path(sys.executable).with_name("hadolint"), "--no-color", path]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    return done.returncode, done.stdout


def test_the_linter_has_no_complaint():
    assert lint(FILE) == (0, "")


def test_the_linter_would_complain(tmp_path):
    worse = tmp_path / "Dockerfile"
    worse.write_text(FILE.read_text().replace("--no-cache-dir ", "", 1))
    code, complaints = lint(worse)
    assert code and "DL3042" in complaints


def test_extras_python_and_targets_exist():
    text, project = (
        FILE.read_text(),
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"],
    )
    extras = {name for found in re.findall(r"'\.\[(.*?)\]'", text) for name in found.split(",")}
    assert extras and extras <= set(project["optional-dependencies"])
    (python,) = re.findall(r"^FROM python:([\d.]+)", text, re.MULTILINE)
    assert SpecifierSet(project["requires-python"]).contains(python)
    assert set(re.findall(r"--target=(\w+)", text)) == {"cpu", "cuda", "tpu"}
    assert re.findall(r"^FROM source AS (\w+)", text, re.MULTILINE) == ["cpu", "cuda", "tpu"]
