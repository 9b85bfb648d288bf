"""The wheel in an environment and a folder of its own: commands, presets, stories, the model."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import conftest
import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = {
    **{path: f"phenaki/share/{path}" for path in ("configs", "examples/stories")},
    "checkpoints/laptop": "phenaki/share/checkpoints/laptop",
    "checkpoints/shapes64": "phenaki/share/checkpoints/shapes64",
}
TRAIN = (
    "--config=cvivit:demo", "--workdir=run", "--config.train.steps=2",
    "--config.train.save_every=2", "--config.train.sample_every=2", "--config.data.batch=2",
    "--config.tokenizer.width=16", "--config.optim.warmup=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A venv with the wheel, and this environment's libraries instead of copies of them."""
    directory = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    install = [sys.executable, "-m", "pip", "--python", directory / "bin/python", "install", "-q"]
    subprocess.run([*install, "--no-deps", "--no-index", wheel], check=True)
    (site,) = directory.glob("lib/python*/site-packages")
    # The path alone: its .pth file, which leads to this clone, is not read.
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "libraries.pth").write_text("\n".join(libraries))
    return directory


@pytest.fixture
def run(environment, tmp_path):
    """Runs a program of the environment in an empty folder: its CompletedProcess."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env["XLA_FLAGS"] = env["XLA_FLAGS"].replace(conftest.DEVICES_FLAG, "")

    def run(program, *arguments):
        command = [environment / "bin" / program, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=env, text=True, capture_output=True, check=False
        )

    return run


def test_the_wheel_has_the_package_and_what_the_commands_find(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"phenaki"}
    tracked = subprocess.run(
        ["git", "ls-files", "phenaki", *SHIPPED],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout.splitlines()
    for path in tracked:
        for folder, inside in SHIPPED.items():
            path = path.replace(folder, inside, 1) if path.startswith(f"{folder}/") else path
        assert path in names


def test_presets_stories_and_models_are_found_in_any_folder(run, environment):
    program = (
        "import phenaki.configs.maskgit as c; from phenaki.io import shipped as s;"
        "print(c.__file__, s.find('city', s.STORIES), s.find('checkpoints/laptop', s.MODELS),"
        " s.find('shapes64/student', s.MODELS))"
    )
    done = run("python", "-c", program)
    paths = done.stdout.split()
    assert [Path(path).name for path in paths] == [
        "maskgit.py", "city.yaml", "laptop", "student",
    ], done.stderr  # fmt: skip
    assert all(Path(path).exists() and environment in Path(path).parents for path in paths)


def test_commands_run_in_any_folder(run, tmp_path):
    assert "  sample " in run("phenaki").stdout
    assert "phenaki sample --model=" in run("phenaki", "sample", "--help").stdout
    done = run("phenaki", "train-cvivit", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/config.json").is_file()
    done = run(
        "phenaki", "sample", "--model=laptop", "--output=out", "--prompt=a red circle",
        "--frames=1", "--steps=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/sample_0.png").is_file()
