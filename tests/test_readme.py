"""Commands in the README, docs and docstrings name files, flags, configs and targets that exist."""

import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest
import script_calls
import tiny

from phenaki.commands.main import MODULES

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "phenaki/commands").glob("*.py")),
    *sorted((ROOT / "experiments").glob("*.py")),
    *sorted((ROOT / "configs").glob("*.py")),
]


def commands():
    """(page, script, flags) of every documented call."""
    pattern = r"^ *(?:python (?=(?:scripts|experiments)/\w+\.py )|(?=phenaki [a-z-]+ --))(.*)$"
    for page in PAGES:
        text = page.read_text().replace("\\\\\n", " ").replace("\\\n", " ")
        for line in re.findall(pattern, text, re.MULTILINE):
            words = shlex.split(line.split(" # ")[0])
            if words[0] == "phenaki":
                words[:2] = [f"scripts/{MODULES[words[1]]}.py"]
            yield pytest.param(page, words[0], words[1:], id=f"{page.name}:{words[0]}:{len(line)}")


@functools.cache
def flags_of(script):
    """Names of a script's flags."""
    with script_calls.loaded(script) as (_, names):
        return names


@pytest.mark.parametrize("page, script, arguments", list(commands()))
def test_documented_command(page, script, arguments):
    known = flags_of(script)
    for argument in arguments:
        name, _, value = argument.lstrip("[-").partition("=")
        assert name.split(".")[0] in known, f"{page.name}: {script} has no flag {argument}"
        if name == "config":
            path, _, variant = value.partition(":")
            path = path.removeprefix("configs/").removesuffix(".py")
            config = importlib.import_module(f"configs.{path}")
            assert variant.partition(",")[0] in (*config.VARIANTS, "VARIANT")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_files_and_targets_exist(page):
    text = page.read_text()
    for path in re.findall(r"\bpython\s((?:\w+/)+\w+\.py)", text):
        assert (ROOT / path).is_file() or "NAME.py" in path, path
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE)) <= targets


def test_tests_that_pages_name_exist():
    named = [
        found
        for page in PAGES
        for found in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text())
    ]
    assert len(named) > 40  # docs/data.md
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


def test_readme_python_runs_on_a_small_model(monkeypatch, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    tiny.phenaki().save(tmp_path / "runs/demo/maskgit")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
