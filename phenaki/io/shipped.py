"""What comes with the package, in a clone and in a wheel: presets, stories and a trained model."""

from pathlib import Path, PurePosixPath

from phenaki.io import paths
from phenaki.io.paths import AnyPath, PathLike

PACKAGE = Path(__file__).parents[1]
PRESETS, STORIES, MODELS = "configs", "examples/stories", "checkpoints"
_SUFFIXES = {PRESETS: ".py", STORIES: ".yaml", MODELS: ""}


def folder(name: str) -> Path:
    """A folder of the repository, or its copy in an installed wheel (pyproject.toml)."""
    copy = PACKAGE / "share" / name
    return copy if copy.is_dir() else PACKAGE.parent / name


def names(name: str) -> list[str]:
    """What the folder `name` has, without suffixes."""
    suffix = _SUFFIXES[name]
    if not folder(name).is_dir():  # as where only the package was copied
        return []
    return sorted(
        path.stem
        for path in folder(name).iterdir()
        if path.suffix == suffix and not path.name.startswith((".", "_"))
    )


def presets() -> list[str]:
    """The names of the configs; a file without `get_config` is none."""
    return [x for x in names(PRESETS) if "get_config" in (folder(PRESETS) / f"{x}.py").read_text()]


def find(given: PathLike, name: str) -> AnyPath:
    """The path `given`; where nothing is there, what it names in the folder `name`.

    "city" and "examples/stories/city.yaml" both name a story, in whatever folder one works, and
    "shapes64/student" what lies in a shipped model.
    """
    path, suffix = paths.path(given), _SUFFIXES[name]
    if paths.is_remote(path) or (path.is_file() if suffix else path.is_dir()):
        return path
    text, prefix = str(path), f"{name}/"
    stem = text.removeprefix(prefix).removesuffix(suffix) if text.startswith(prefix) else text
    if stem in names(name):
        return folder(name) / f"{stem}{suffix}"
    first, *below = PurePosixPath(stem).parts or ("",)
    inside = bool(below) and ".." not in below and first in names(name)
    companion = folder(name).joinpath(first, *below)
    return companion if inside and not suffix and companion.is_dir() else path
