"""The import order of docs/architecture.md, and which folders may import TensorFlow and Flax."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text()
ORDER = [
    {name.strip() for name in line.split(",")}
    for line in PAGE.split("## Import order")[1].split("```")[1].strip().splitlines()
]
# Top-level module or folder of phenaki -> the line of the import order that it is in.
LAYER = {name: layer for layer, names in enumerate(ORDER) for name in names}
NETWORKS = {"blocks", "features", "models", "text"}
# All that `data` may import: no networks.
DATA_IMPORTS = {"errors", "io", "progress", "types"}
TENSORFLOW = {"seqio", "tensorflow", "tensorflow_datasets", "tensorflow_text", "tfds"}
FILES = sorted(
    path for top in ("phenaki", "configs", "scripts") for path in (ROOT / top).rglob("*.py")
)


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """The top-level module or folder of phenaki that a file belongs to."""
    return path.relative_to(ROOT / "phenaki").with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_from_layers_below(path):
    ours = {name.removeprefix("phenaki.") for name in imports(path) if name.startswith("phenaki.")}
    top = path.relative_to(ROOT).parts[0]
    if top == "configs":
        # No code of the package, except its error and the sizes of the public text encoders.
        others = {name for name in ours if not name.startswith("configs.")}
        assert others <= {"errors.UserError", "text.sizes"}, f"configs import {others}"
    if top != "phenaki" or path.parent.name == "phenaki" and path.stem.startswith("__"):
        return
    part = part_of(path)
    assert part in LAYER, f"{part} is not in the import order of docs/architecture.md"
    for name in ours:
        other = name.split(".")[0]
        if other not in LAYER:  # `from phenaki import __version__`
            assert other.startswith("__"), f"{path}: phenaki.{other} is not in the import order"
        elif other != part:
            assert LAYER[other] < LAYER[part], f"{part} imports {name}, which is not below it"
            if part == "data":
                assert any(f"{name}.".startswith(f"{known}.") for known in DATA_IMPORTS), (
                    f"data imports {name}"
                )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tensorflow_and_linen_stay_in_their_folders(path):
    top, part = path.relative_to(ROOT).parts[:2]
    part = part.removesuffix(".py") if top == "phenaki" else top
    if part != "data":
        assert not {name.split(".")[0] for name in imports(path)} & TENSORFLOW
    if part not in NETWORKS:
        assert not {name for name in imports(path) if f"{name}.".startswith("flax.linen.")}
    if top == "configs":
        allowed = {"__future__", "configs", "functools", "math", "ml_collections", "phenaki"}
        assert {name.split(".")[0] for name in imports(path)} <= allowed


# --- sizes

CODE = [path for path in FILES if path.relative_to(ROOT).parts[0] == "phenaki"]
CONFIG_FILES = {
    "data/batches.py",
    "models/factory.py",
    "planning/programs.py",
    "train/critic.py",
    "train/maskgit.py",
    "train/tokenizer.py",
}


def functions(path: Path):
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def takes_a_config(function: ast.FunctionDef) -> bool:
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any(
        argument.arg == "config"
        or (argument.annotation and "ConfigDict" in ast.unparse(argument.annotation))
        for argument in given
    )


def test_a_config_becomes_values_early():
    package = [path for path in CODE if part_of(path) != "commands"]
    assert sum(takes_a_config(function) for path in package for function in functions(path)) <= 25


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_is_opened_where_the_page_says(path):
    """Its fields are read in six files; all may hand it on and ask for its kind.

    Commands set fields of it, as their command lines do.
    """
    names = ("config", "self.config", "model.config")
    opened = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in names
    } - {"get", "kind", "to_dict"}
    if part_of(path) != "commands" and str(path.relative_to(ROOT / "phenaki")) not in CONFIG_FILES:
        assert not opened


def test_the_top_level_is_one_screen():
    modules = {path.stem for path in (ROOT / "phenaki").glob("*.py")}
    assert len(modules - {"__init__", "__main__"}) <= 8


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_fits_on_a_screen(path):
    lines = path.read_text().splitlines()
    for function in functions(path):
        body = [line for line in lines[function.lineno - 1 : function.end_lineno] if line.strip()]
        assert len(body) <= 50, f"{function.name} has {len(body)} lines"
