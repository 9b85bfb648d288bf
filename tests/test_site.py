"""The README is short, the site builds without a warning, and its notebooks run."""

import json
import os
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import conftest
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "examples/notebooks"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a broken link, a missing page or an unknown name ends the build."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", directory]
    done = subprocess.run(
        command, cwd=ROOT, text=True, capture_output=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return directory


def test_the_readme_is_short_and_its_first_screen_has_what_one_looks_for():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    first = "\n".join(lines[:20])
    film = re.search(r"!\[.+\]\((docs/.+\.gif)\)", first)
    assert film and (ROOT / film[1]).stat().st_size < 500_000
    assert "**What it is not:**" in first
    assert len(re.findall(r"```sh\n(.*\n)(.*\n)```", first)) == 1  # two commands


def test_links_of_the_readme_exist():
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link


def test_the_site_has_every_page(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= {path.parent.name for path in site.rglob("index.html")}


def test_every_page_can_be_found_from_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for path in (ROOT / "docs").glob("*.md"):
        assert f": {path.name}" in nav, path.name


def test_the_reference_shows_signatures_and_docstrings(site):
    page = (site / "reference/index.html").read_text()
    for name in ("phenaki.pipeline.Phenaki.generate", "phenaki.models.frozen.Tokenizer.encode"):
        assert f'id="{name}"' in page
    assert "Text to video, or to an image with frames=1." in page


def test_nothing_of_the_site_is_loaded_from_elsewhere(site):
    for path in (site / "index.html", site / "reference/index.html"):
        text = path.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="(\w+:)?//', text)
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(?:\w+:)?//', text)
        assert not loaded


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_becomes_a_page_and_a_download(site, path):
    page = (site / "notebooks" / path.stem / "index.html").read_text()
    assert "<h1" in page and f"{path.stem}.ipynb" in page
    cells = json.loads((site / "notebooks" / f"{path.stem}.ipynb").read_text())["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}


def test_the_first_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = types.SimpleNamespace(Video=lambda path, **_: Path(path).stat())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=shown))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    runpy.run_path(str(NOTEBOOKS / "first_video.py"))
    assert (tmp_path / "first.mp4").stat().st_size > 1000
    assert (tmp_path / "story.mp4").stat().st_size > 1000


def test_the_notebook_of_own_clips_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, NOTEBOOKS / "own_clips.py"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": os.environ["XLA_FLAGS"].replace(conftest.DEVICES_FLAG, ""),
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("sample_0.mp4"))


def test_the_site_needs_no_service():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False and "extra" not in config
