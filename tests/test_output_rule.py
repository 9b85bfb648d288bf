"""Every command that writes obeys the rule of `outputs`; the table below has all of them."""

import re
from pathlib import Path

import pytest
import script_calls

from phenaki.commands import main
from phenaki.errors import UserError
from phenaki.io import outputs

# Of config files; the errors of commands are what counts.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = Path(__file__).parents[1]
CVIVIT = "--config=configs/cvivit.py:demo"
MASKGIT = "--config=configs/maskgit.py:demo"
SCENE = "--scene=a red circle moves left@1"
# File of a command -> (flag of its output folder, its kind, [(flags of an input, all others)]).
FOLDERS = {
    "prepare_data": ("output", "data set", [("input",), ("captions", "--input=elsewhere")]),
    "encode_dataset": (
        "output",
        "tokens",
        [("input", MASKGIT, "--tokenizer=x"), ("tokenizer", MASKGIT, "--input=x")],
    ),
    "train_cvivit": (
        "workdir",
        "run",
        [
            ("config.data.sources", CVIVIT, "--config.data.source=tfds"),
            ("config.start", CVIVIT),
        ],
    ),
    "train_maskgit": (
        "workdir",
        "run",
        [
            ("tokenizer", MASKGIT),
            ("config.data.sources", MASKGIT, "--config.data.source=codes", "--tokenizer=x"),
        ],
    ),
    "train_critic": ("workdir", "run", [("generator", "--config=configs/critic.py:demo")]),
    "train_student": ("output", "model", [("model",), ("prompts", "--model=x")]),
    "demo": ("workdir", "demo", [("released",)]),
    "sample": (
        "output",
        "samples",
        [
            ("model", "--prompt=a"),
            ("image", "--model=x", "--prompt=a"),
            ("video", "--model=x", "--prompt=a"),
            ("critic", "--model=x", "--prompt=a"),
            ("student", "--model=x", "--prompt=a"),
            ("story", "--model=x"),
            ("model", SCENE),
        ],
    ),
    "story": (
        "output",
        "samples",
        [
            ("model", SCENE),
            ("critic", "--model=x", SCENE),
            ("student", "--model=x", SCENE),
            ("story", "--model=x"),
        ],
    ),
    "fill": (
        "output",
        "samples",
        [
            ("video", "--model=x", "--anew=0:1"),
            ("model", "--video=x", "--anew=0:1"),
            ("critic", "--model=x", "--video=x", "--anew=0:1"),
            ("mask", "--model=x", "--video=x"),
        ],
    ),
    "reconstruct": ("output", "samples", [("video", "--model=x"), ("model", "--video=x")]),
    "evaluate": (
        "output",
        "evaluation",
        [
            ("model", "--table=3", "--row=cvivit"),
            ("data", "--table=3", "--row=cvivit", "--model=x"),
            ("weights", "--table=3", "--row=cvivit", "--model=x"),
            ("model", "--table=all", "--preset=laptop"),
        ],
    ),
    "export": ("output", "model", [("model",), ("model", "--programs")]),
    "push": ("output", "shared model", [("model",)]),
    "pull": ("output", "shared model", [("model",)]),
    "studio": (
        "output",
        "studio",
        [("model",), ("critic", "--model=x"), ("runs", "--model=x")],
    ),
    "convert_weights": ("output", "weights", [("input", "--network=vgg16")]),
    "compare_tokenizers": ("workdir", "experiment", [("weights",)]),
    "compare_samplers": ("output", "experiment", [("model",), ("student", "--model=x")]),
    "long_stories": ("output", "experiment", [("models",)]),
    "make_digits": ("output", "experiment", []),
    "mix_images": ("workdir", "experiment", []),
    "sweep_guidance": ("output", "experiment", [("model",), ("critic", "--model=x")]),
    "sweep_negative": ("output", "experiment", [("model",)]),
}
# -> (flag of its output file, all others).
FILES = {
    "inspect_data": ("output", ["--data=x"]),
    "compare": ("output", ["--run=x"]),
    "plan": ("results", [CVIVIT, "--topology=v5e:4x4", "--compile"]),
    "accelerator": ("output", []),
    "input_pipeline": ("output", []),
    "objective": ("output", [CVIVIT]),
    "loading": ("output", [f"--before={ROOT}"]),
    "pods": ("output", [f"--before={ROOT}"]),
    "segments": ("output", []),
    "speed": ("output", []),
    "scaling": ("figure", []),
}
WRITES_NOTHING = {"doctor"}
SHARED = {"sampling_flags", "training_flags"}  # flags of several commands, which are in the table
# Of no flag: benchmarks/peers.py writes one file, which `record` checks.
FLAGS = {"output", "workdir", "results", "figure", "windows"}


def script(name):
    for folder in ("phenaki/commands", "experiments", "benchmarks"):
        if (ROOT / folder / f"{name}.py").is_file():
            return f"{folder}/{name}.py"
    raise AssertionError(name)


def call(name, *flags):
    script_calls.call(script(name), *flags)


def test_the_tables_have_every_command_that_writes():
    known = FOLDERS.keys() | FILES.keys() | WRITES_NOTHING
    assert set(main.MODULES.values()) <= known
    for folder in ("phenaki/commands", "experiments", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            names = set(re.findall(r'DEFINE_string\(\s*"(\w+)"', path.read_text()))
            if names & FLAGS and path.stem not in SHARED:
                assert path.stem in known - WRITES_NOTHING, path
    assert {kind for _, kind, _ in FOLDERS.values()} == outputs.KINDS.keys() - {
        "windows", "programs", "preparation"}  # fmt: skip


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Somebody's folders, a folder of every kind, and links."""
    for kind in outputs.KINDS:
        with outputs.claimed("x", tmp_path / "of" / kind, kind):
            pass
    files = {
        "mine/thesis.txt": "mine",
        "tfrecords/laion.tfrecord-00000-of-00001": "mine",
        "numpy/a.npz": "mine",
        "json/config.json": '{"mine": 1}',
        "json/manifest.json": "[1]",
        "in/data/a.png": "mine",
        "in/file.csv": "file,caption",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "to_mine").symlink_to(tmp_path / "mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


def flags_of(name, root):
    """Flags with inputs that lie elsewhere, and are not there."""
    _, _, inputs = FOLDERS[name]
    if not inputs:
        return []
    flag, *rest = inputs[0]
    return [*rest, f"--{flag}={root / 'elsewhere'}"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_is_not_the_commands_is_refused_and_stays(name, here):
    flag, kind, _ = FOLDERS[name]
    others = [f"of/{other}" for other in outputs.KINDS.keys() - {kind}]
    before = contents(here)
    for output in ["mine", "tfrecords", "numpy", "json", "to_mine", "in/file.csv", *others]:
        with pytest.raises(UserError) as raised:
            call(name, *flags_of(name, here), f"--{flag}={here / output}")
        assert f"--{flag}={here / output}: " in str(raised.value)
        assert contents(here) == before, output
    with pytest.raises(UserError, match="loop"):
        call(name, *flags_of(name, here), f"--{flag}={here / 'loop'}")
    assert contents(here) == before


CONTAINED = [
    (name, *given) for name, (_, _, inputs) in FOLDERS.items() for given in inputs
]  # (command, flag of the input, all others)


@pytest.mark.parametrize("case", CONTAINED, ids=lambda case: "-".join(case[:2]))
def test_inputs_and_outputs_of_every_command_lie_apart(case, here):
    name, given, *rest = case
    flag, _, _ = FOLDERS[name]
    before = contents(here)
    for output, source, word in [
        ("in", "in", "be"),
        ("link", "in", "be"),
        ("in", "link", "be"),
        ("in/out", "in", "lie inside"),
        ("link/a/b", "in", "lie inside"),
        ("in", "in/data", "contain"),
        ("in", "in/data/a.png", "contain"),
        ("link", "in/data", "contain"),
    ]:
        with pytest.raises(UserError) as raised:
            call(name, *rest, f"--{given}={here / source}", f"--{flag}={here / output}")
        line = f"--{flag}={here / output}: must not {word} --{given}={here / source};"
        assert line in str(raised.value)
        assert contents(here) == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_commands_is_refused_and_stays(name, here):
    flag, rest = FILES[name]
    before = contents(here)
    for output in ["mine/thesis.txt", "to_mine/thesis.txt", "json/config.json", "mine"]:
        with pytest.raises(UserError) as raised:
            call(name, *rest, f"--{flag}={here / output}")
        assert f"--{flag}={here / output}: " in str(raised.value)
        assert contents(here) == before
