"""docs/architecture.md names every file of the project, and every path that it gives exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
SECTIONS = {
    part.partition("\n")[0]: part.partition("\n")[2] for part in re.split(r"^## ", PAGE, flags=re.M)
}
TOPS = ("phenaki", "configs", "scripts", "experiments", "examples", "tests", "benchmarks")


def tree() -> dict[str, str]:
    """{path: clause} of the tree, in its order; folders end in a slash."""
    clauses: dict[str, str] = {}
    for block in re.findall(r"```\n(.*?)```", SECTIONS["Tree"], re.DOTALL):
        folders: list[str] = []
        for line in block.splitlines():
            indent, name, clause = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()
            del folders[len(indent) // 2 :]
            path = "".join((*folders, name))
            assert path not in clauses, f"{path} twice"
            clauses[path] = clause
            if name.endswith("/"):
                folders.append(name)
    return clauses


TREE = tree()
# Paths in backticks outside the tree.
PATHS = sorted(
    {
        path
        for title, text in SECTIONS.items()
        if title != "Tree"
        for path in re.findall(r"`((?:[\w.]+/)+(?:\w+\.(?:py|md|sh|yaml))?)`", text)
    }
)
NAMES = re.findall(r"^\| .*? \| `(\S+)` \| `(\w+)` \|$", SECTIONS["Where is ..."], re.M)


def test_no_file_is_missing_from_the_tree():
    files = (
        path.relative_to(ROOT)
        for top in TOPS
        for path in (ROOT / top).rglob("*")
        if path.suffix in {".py", ".sh", ".yaml"} and path.name != "__init__.py"
    )
    assert not sorted({str(path) for path in files} - set(TREE))


def test_no_folder_is_missing_from_the_tree():
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for top in TOPS
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not sorted(folders - set(TREE))


@pytest.mark.parametrize("path", TREE)
def test_a_path_of_the_tree_exists(path):
    assert (ROOT / path).exists()
    assert TREE[path] or path.count("/") == 1, f"{path} has no clause"


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_the_page_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path, name", NAMES, ids=lambda value: value)
def test_the_answer_is_in_its_file(path, name):
    assert re.search(rf"\b{name}\b", (ROOT / path).read_text())


def test_the_reading_tour_has_at_most_12_files():
    tour = re.findall(r"^\d+\. `(\S+)`: \S", SECTIONS["Reading tour"], re.M)
    assert "phenaki/commands/train_maskgit.py" == tour[0]
    assert len(tour) == len(set(tour)) <= 12
    assert set(tour) <= set(PATHS)


def test_ten_common_changes_and_the_questions_of_a_newcomer_are_answered():
    rows = {
        title: len(re.findall(r"^\| .*`.*`.* \|$", SECTIONS[title], re.M))
        for title in ("To change X, touch Y", "Where is ...")
    }
    assert min(rows.values()) >= 10
    assert len(NAMES) >= 15


def test_the_package_of_the_tree_is_that_of_the_import_order():
    block = SECTIONS["Import order"].split("```")[1]
    ordered = set(re.findall(r"\w+", block))
    parts = [path.split("/")[1].removesuffix(".py") for path in TREE if path.startswith("phenaki/")]
    assert ordered == {part for part in parts if part} - {"__main__"}
