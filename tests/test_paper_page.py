"""docs/paper.md: every citation of it resolves, and the files, tests and fields it names exist."""

import functools
import importlib
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/paper.md"
TEXT = PAGE.read_text("utf-8")
PRESET = re.compile(r"(configs/\w+\.py):(\w+)")
TEST = re.compile(r"(?:tests/)?((?:parity/)?test_\w+\.py)(?:::(test_\w+))?")
CITING = ("benchmarks", "configs", "docs", "experiments", "phenaki", "scripts", "tests")


class Field(NamedTuple):
    """A field that the page names, of the preset that it names it for."""

    preset: str
    path: str  # config.section.field
    value: str  # of "`config.section.field` = 0", "" where the page says none


def anchors() -> list[str]:
    return re.findall(r'<a id="([^"]+)">', TEXT)


def quoted() -> list[str]:
    """What the page has in backticks."""
    return re.findall(r"`([^`\n]+)`", TEXT)


def fields() -> list[Field]:
    """A field is of the last preset before it in the same cell, else of the last `Preset:`."""
    found, heading = [], ""
    for line in TEXT.splitlines():
        if match := re.search(r"Preset: `([^`]+)`", line):
            heading = match[1]
        for cell in line.split("|") if line.startswith("|") else [line]:
            preset = heading
            for word, value in re.findall(r"`([^`]+)`(?: = (\d+))?", cell):
                if PRESET.fullmatch(word):
                    preset = word
                elif re.fullmatch(r"config(\.\w+)+", word) and word != "config.gin":
                    found.append(Field(preset, word, value))
    return list(dict.fromkeys(found))


@functools.cache
def config(preset: str):
    file, variant = PRESET.fullmatch(preset).groups()
    return importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(variant)


def test_anchors_are_unique_and_links_within_the_page_resolve():
    assert len(anchors()) > 50
    assert sorted(anchors()) == sorted(set(anchors()))
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= set(anchors())


def test_every_citation_of_the_page_resolves():
    files = [path for top in CITING for path in (ROOT / top).rglob("*.[pm][yd]")]
    cited = {
        (str(path.relative_to(ROOT)), anchor)
        for path in (*files, ROOT / "README.md")
        if path.name != "test_vocabulary.py"  # has a placeholder
        for anchor in re.findall(r"paper\.md#([\w-]+)", path.read_text("utf-8"))
    }
    assert len({path for path, _ in cited if path.startswith(("phenaki/", "configs/"))}) > 10
    assert not {(path, anchor) for path, anchor in cited if anchor not in anchors()}


def test_every_path_exists():
    paths = [word for word in quoted() if re.fullmatch(r"[\w.-]+/[\w./-]*", word)]
    assert len(paths) > 50
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("preset", sorted({w for w in quoted() if PRESET.fullmatch(w)}))
def test_every_preset_builds(preset):
    assert config(preset)


@pytest.mark.parametrize("field", fields(), ids=lambda field: f"{field.preset} {field.path}")
def test_every_field_exists_and_has_the_value_that_is_stated(field):
    value = config(field.preset)
    for key in field.path.split(".")[1:]:
        assert key in value, f"{field.path} of {field.preset}"
        value = value[key]
    assert field.value in ("", str(value))


def test_every_test_exists():
    named = [match.groups() for word in quoted() if (match := TEST.fullmatch(word))]
    assert len(named) > 50
    missing = []
    for file, name in named:
        path = ROOT / "tests" / file
        if not path.is_file() or (name and f"def {name}(" not in path.read_text("utf-8")):
            missing.append((file, name))
    assert not missing
