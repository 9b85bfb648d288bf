"""What a user gets wrong is one clear line, exit code 2 and no traceback, from the real scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from phenaki.io import checkpoint

ROOT = Path(__file__).parents[1]
# Python with all its libraries takes seconds to start: one does, and forks for each command.
SERVER = """
import json, os, runpy, sys, warnings
import phenaki.pipeline, phenaki.train.tokenizer, phenaki.train.maskgit
warnings.filterwarnings("ignore", "os.fork")  # no thread runs yet: no computation was started
for line in sys.stdin:
    command, stdout, stderr = json.loads(line)
    child = os.fork()
    if not child:
        for number, name in enumerate((os.devnull, stdout, stderr)):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags), number)
        sys.argv = command
        sys.path.insert(0, os.path.dirname(command[0]))  # as of `python FILE`
        runpy.run_path(command[0], run_name="__main__")
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "-c", SERVER], env=env, cwd=ROOT, **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def error_of(server, tmp_path):
    """Runs a script and returns the one line of its error."""

    def run(script, *arguments):
        output, error = tmp_path / "stdout", tmp_path / "stderr"
        job = ([f"scripts/{script}.py", *map(str, arguments)], str(output), str(error))
        print(json.dumps(job), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        assert (code, output.read_text()) == (2, ""), error.read_text()
        (line,) = error.read_text().splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Directories by name: a tokenizer, a run without checkpoint, an empty one; and a file."""
    root = tmp_path_factory.mktemp("places")
    paths = {name: root / name for name in ("tokenizer", "begun", "empty", "file", "missing")}
    params = {"tokenizer": tiny.phenaki().params["tokenizer"]}
    config = tiny.tokenizer_config()
    checkpoint.save_bundle(paths["tokenizer"], params, config.to_dict(), kind="tokenizer")
    paths["begun"].mkdir()
    (paths["begun"] / "config.json").write_text(json.dumps(config.to_dict()))
    paths["empty"].mkdir()
    paths["file"].write_text("not a directory")
    return paths


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            "optim.ratee=1e-3",
            "--config.optim.ratee: no such field; did you mean --config.optim.rate?",
        ),
        (
            "video.frames=10",
            "config.video.frames=10 must be 1 + a multiple of config.tokenizer.patch[0]=2 "
            "(frame 0 is tokenized alone); nearest is 9.",
        ),
        (
            "video.height=60",
            "config.video.height=60 must be a multiple of config.tokenizer.patch[1]=16; "
            "nearest is 64.",
        ),
        (
            "tokenizer.heads=5",
            "config.tokenizer.width=192 must be a multiple of heads=5; nearest is 190.",
        ),
        (
            "dtype=float16",
            "config.dtype='float16' must be one of float32, bfloat16; did you mean bfloat16?.",
        ),
        (
            "data.source=folder",
            "config.data.source='folder' must be one of moving_shapes, tfds, codes.",
        ),
        (
            "video.width=48",
            "config.video.width=48: moving shapes are square; nearest is 32, the height.",
        ),
        (
            "mesh.tensor=3",
            "config.mesh={'data': -1, 'fsdp': 1, 'sequence': 1, 'tensor': 3} must multiply to the "
            "1 devices, with at most one -1; nearest is {'data': 1, 'fsdp': 1, 'sequence': 1, "
            "'tensor': 1}.",
        ),
    ],
    ids=lambda value: value.partition("=")[0] if "error" not in value else "",
)
def test_a_wrong_field_of_stage_1(error_of, tmp_path, change, line):
    config = "--config=configs/cvivit.py:laptop"
    assert (
        error_of("train_cvivit", config, f"--workdir={tmp_path}/run", f"--config.{change}") == line
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("missing", "{}: no such directory; give a run's --workdir or a saved bundle."),
        ("empty", "{}: is not a run (it has no config.json); give a training run's --workdir."),
        ("begun", "{}: has no checkpoint yet; train until one is written."),
    ],
)
def test_a_tokenizer_that_is_none(error_of, places, tmp_path, place, line):
    path = places[place]
    config = "--config=configs/maskgit.py:laptop"
    arguments = (config, f"--tokenizer={path}", f"--workdir={tmp_path}/run")
    assert error_of("train_maskgit", *arguments) == line.format(path)
    if place != "begun":
        assert error_of("sample", f"--model={path}", "--prompt=a", f"--output={tmp_path}/out") == (
            line.format(path)
        )


def test_a_generator_of_other_codes(error_of, places, tmp_path):
    line = error_of(
        "train_maskgit",
        "--config=configs/maskgit.py:laptop",
        f"--tokenizer={places['tokenizer']}",
        f"--workdir={tmp_path}/run",
    )
    assert line == "config.model.codebook=1024 must be the tokenizer's codebook, 32."
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_cannot_be_sampled(error_of, places, tmp_path):
    arguments = (f"--model={places['tokenizer']}", "--prompt=a", f"--output={tmp_path}/out")
    assert error_of("sample", *arguments) == (
        f"{places['tokenizer']}: holds a tokenizer, not a whole model."
    )


def test_output_that_cannot_be_written(error_of, places, tmp_path):
    below = places["file"] / "out"
    config = "--config=configs/cvivit.py:laptop"
    line = error_of("train_cvivit", config, f"--workdir={below}")
    assert line == f"--workdir={below}: cannot be written: Not a directory."
    arguments = (f"--model={places['tokenizer']}", "--prompt=a", f"--output={below}")
    line = error_of("sample", *arguments)
    assert line == f"--output={below}: cannot be written: Not a directory."


def test_nothing_to_sample(error_of, places):
    arguments = (f"--model={places['tokenizer']}", f"--output={places['empty']}")
    line = error_of("sample", *arguments)
    assert line == "nothing to sample: give --prompt or --unconditional or --scene or --story."
    line = error_of("sample", *arguments, "--scene=a red circle moves left")
    assert line.startswith("--scene='a red circle moves left': must be TEXT@SECONDS, such as ")
