"""A user's mistake is one line and exit code 2; a defect keeps its traceback; help stays short."""

import subprocess
import sys

import pytest

from phenaki import cli

CONFIG = """
from ml_collections import ConfigDict
from phenaki.errors import UserError

def get_config(variant="small"):
    if variant == "defect":
        return int("a defect of the config")
    if variant != "small":
        try:
            {}[variant]
        except KeyError:
            raise UserError(f"toy.py:{variant}: unknown variant; known: small")
    data = dict(frames=9, patch=(2, 8, 8), flip=True)
    return ConfigDict(dict(data=data, optim=dict(lr=1e-3, warmup=10), steps=5))
"""
SCRIPT = '''"""Train a toy.

python script.py --config=toy.py --workdir=runs/toy
"""
import sys
from absl import flags, logging
from ml_collections import config_flags
from phenaki import cli
from phenaki.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "what to train")
WORKDIR = flags.DEFINE_string("workdir", None, "where the run goes")
FORMAT = flags.DEFINE_enum("format", "gif", ["gif", "mp4"], "kind of file")
SEED = flags.DEFINE_integer("seed", 0, "random seed", lower_bound=0)
flags.DEFINE_integer("size", 4, "in pixels", lower_bound=1, upper_bound=8)
HAPPENS = flags.DEFINE_string("happens", "", "what happens")
flags.mark_flags_as_required(["config", "workdir"])

def main(argv):
    logging.info("narration")
    if HAPPENS.value == "mistake":
        raise UserError("config.data.frames=10 must be 1 + a multiple of 2;\\n  nearest is 9")
    if HAPPENS.value == "defect":
        CONFIG.value.no_such_field
    if HAPPENS.value == "unwritable":
        open("toy.py/out.mp4", "wb")
    if HAPPENS.value == "denied":
        raise PermissionError(13, "Permission denied", "/out.mp4")
    if HAPPENS.value == "interrupt":
        raise KeyboardInterrupt
    if HAPPENS.value.startswith("return "):
        return eval(HAPPENS.value[7:])
    config = CONFIG.value
    print(config.data.frames, config.data.patch, config.data.flip, config.optim.lr, SEED.value)

if __name__ == "__main__":
    cli.run(main)
'''
GIVEN = ("--config=toy.py", "--workdir=w")


@pytest.fixture
def script(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(CONFIG)
    (tmp_path / "script.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(cli.Path(cli.__file__).parents[1]))

    def run(*arguments):
        command = [sys.executable, "script.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)

    return run


def test_overrides_reach_main(script):
    result = script(
        *GIVEN, "--config.data.frames=5", "--config.data.patch=(1,4,4)", "--config.optim.lr=1"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "5 (1, 4, 4) True 1.0 0\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--config is required"),
        (["--config=toy.py"], "--workdir is required"),
        ([*GIVEN, "--sede=1"], "unknown flag --sede; did you mean --seed?"),
        ([*GIVEN, "--conifg.steps=1"], "unknown flag --conifg.steps; did you mean --config.steps?"),
        ([*GIVEN, "--seed=abc"], "--seed=abc: must be of type int, such as 0"),
        ([*GIVEN, "--seed=-1"], "--seed=-1: must be at least 0; nearest is 0"),
        ([*GIVEN, "--size=9"], "--size=9: must be 1 to 8; nearest is 8"),
        ([*GIVEN, "--size=0"], "--size=0: must be 1 to 8; nearest is 1"),
        ([*GIVEN, "--seed"], "Missing value for flag --seed"),
        (
            [*GIVEN, "--format=mp5"],
            "--format=mp5: must be one of gif, mp4; did you mean mp4?",
        ),
        (
            [*GIVEN, "a circle"],
            "unexpected argument 'a circle'; options are written --name=value",
        ),
        (
            [*GIVEN, "--config.optim.lrr=1"],
            "--config.optim.lrr: no such field; did you mean --config.optim.lr?",
        ),
        (
            [*GIVEN, "--config.optm.lr=1"],
            "--config.optm.lr: no such field; did you mean --config.optim.lr?",
        ),
        (
            [*GIVEN, "--config.lr=1"],
            "--config.lr: no such field; did you mean --config.optim.lr?",
        ),
        (
            [*GIVEN, "--config.zebra=1"],
            "--config.zebra: no such field; config has data, optim, steps",
        ),
        (
            [*GIVEN, "--config.optim.what_it_has_not=1"],
            "--config.optim.what_it_has_not: no such field; config.optim has lr, warmup",
        ),
        (
            [*GIVEN, "--config.steps.total=1"],
            "--config.steps.total: no such field; did you mean --config.steps?",
        ),
        (
            [*GIVEN, "--config.data.frames=abc"],
            "--config.data.frames=abc: must be of type int, such as 9",
        ),
        (
            [*GIVEN, "--config.data.flip=maybe"],
            "--config.data.flip=maybe: must be of type bool, such as True",
        ),
        (
            ["--config.steps=1", *GIVEN],
            "Found --config.steps=1 in argv before a value for --config was specified",
        ),
        (
            ["--config=toyy.py", "--workdir=w", "--config.steps=1"],
            "--config=toyy.py: no such file; did you mean toy.py?",
        ),
        (["--config", "none.py", "--workdir=w"], "--config=none.py: no such file"),
        (
            ["--config=cvivt:small", "--workdir=w"],
            "--config=cvivt:small: no such file or preset; did you mean cvivit?",
        ),
        (
            ["--config=zebra", "--workdir=w"],
            "--config=zebra: no such file or preset; presets are baselines, critic, cvivit, "
            "maskgit",
        ),
        (
            ["--config=tables", "--workdir=w"],
            "--config=tables: has no get_config, as a config file must.",
        ),
        (["--config=toy.py:big", "--workdir=w"], "toy.py:big: unknown variant; known: small"),
        (
            [*GIVEN, "--happens=mistake"],
            "config.data.frames=10 must be 1 + a multiple of 2; nearest is 9",
        ),
        ([*GIVEN, "--happens=unwritable"], "toy.py/out.mp4: Not a directory"),
        ([*GIVEN, "--happens=denied"], "/out.mp4: Permission denied"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_one_line(script, arguments, line):
    result = script(*arguments)
    assert result.stderr == f"error: {line}\n"
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ([*GIVEN, "--happens=defect"], "no_such_field"),
        (["--config=toy.py:defect", "--workdir=w"], "ValueError: invalid literal for int()"),
    ],
)
def test_a_defect_keeps_its_traceback(script, arguments, last):
    result = script(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert last in result.stderr.splitlines()[-1]


def test_an_interrupt_is_no_error(script):
    result = script(*GIVEN, "--happens=interrupt")
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(("value", "code"), [("3", 3), ("None", 0), ("[1]", 0)])
def test_an_integer_that_main_returns_is_the_exit_code(script, value, code):
    result = script(*GIVEN, f"--happens=return {value}")
    assert (result.returncode, result.stderr) == (code, "")


def test_help_is_the_docstring_and_the_flags(script):
    result = script("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Train a toy.\n")
    shown = [line.split("=")[0].strip() for line in result.stdout.splitlines() if "  --" in line]
    assert shown == ["--config", "--format", "--happens", "--seed", "--size", "--workdir"]
    assert "random seed (default: 0)" in result.stdout
