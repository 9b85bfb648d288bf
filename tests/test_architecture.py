"""The house's floors: a file imports only from floors below it, or from its own room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
FLOORS = [
    {room.strip() for room in line.split(",")}
    for line in PAGE.split("## Import order")[1].split("```")[1].strip().splitlines()
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NETWORKS = {"blocks", "features", "models", "text"}
# All that the data tower may know of the rest: nothing here is a network.
SEEN_FROM_DATA = {"errors", "io", "progress", "types"}
TENSORFLOW = {"seqio", "tensorflow", "tensorflow_datasets", "tensorflow_text", "tfds"}
FILES = sorted(
    path for top in ("phenaki", "configs", "scripts") for path in (ROOT / top).rglob("*.py")
)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function, by its full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "phenaki").with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_floors_below(path):
    ours = {name.removeprefix("phenaki.") for name in imports(path) if name.startswith("phenaki.")}
    top = path.relative_to(ROOT).parts[0]
    if top == "configs":
        # No code of ours: the one exception, and the sizes of the public text encoders.
        assert ours <= {"errors.UserError", "text.sizes"}, f"configs import {ours}"
    if top != "phenaki" or path.parent.name == "phenaki" and path.stem == "__init__":
        return
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor: give it one in docs/architecture.md"
    for name in ours:
        other = name.split(".")[0]
        if other not in FLOOR:  # `from phenaki import __version__`
            assert other.startswith("__"), f"{path}: phenaki.{other} has no floor"
        elif other != room:
            assert FLOOR[other] < FLOOR[room], f"{room} imports {name}: it must be on a floor below"
            if room == "data":
                assert any(f"{name}.".startswith(f"{seen}.") for seen in SEEN_FROM_DATA), (
                    f"data imports {name}"
                )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tensorflow_and_linen_stay_in_their_rooms(path):
    top, room = path.relative_to(ROOT).parts[:2]
    room = room.removesuffix(".py") if top == "phenaki" else top
    if room != "data":
        assert not {name.split(".")[0] for name in imports(path)} & TENSORFLOW
    if room not in NETWORKS:
        assert not {name for name in imports(path) if f"{name}.".startswith("flax.linen.")}
    if top == "configs":
        allowed = {"__future__", "configs", "functools", "math", "ml_collections", "phenaki"}
        assert {name.split(".")[0] for name in imports(path)} <= allowed
