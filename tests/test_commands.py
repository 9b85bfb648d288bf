"""`phenaki COMMAND`: every command has a script, a line of the help, and its flags."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from phenaki import __version__
from phenaki.commands import main as commands

ROOT = Path(__file__).parents[1]


def phenaki(monkeypatch, capsys, *arguments):
    """(exit code, stdout, stderr) of the console command."""
    monkeypatch.setattr(sys, "argv", ["phenaki", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    return (ended.value.code, *capsys.readouterr())


def test_every_command_has_a_module_a_script_and_a_line_of_the_help():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__", "start"}
    modules = {path.stem for path in (ROOT / "phenaki/commands").glob("*.py")}
    assert scripts <= set(commands.MODULES.values()) <= modules
    for name, module in commands.MODULES.items():
        if module in scripts:
            assert f'run("{name}")' in (ROOT / f"scripts/{module}.py").read_text()
        (line,) = (x for x in commands.overview().splitlines() if x.split()[:1] == [name])
        assert len(line.split()) > 2 and len(line) <= 120


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    assert phenaki(monkeypatch, capsys, "--version") == (0, f"phenaki {__version__}\n", "")


def test_a_python_runs_the_commands_of_its_environment():
    command = [sys.executable, "-m", "phenaki", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"phenaki {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["story", "--help"],
        ["convert", "--list"],
        ["plan", "--config=cvivit:mini"],
        ["plan", "--config=cvivit:mini", "--topology=v5e:2x2"],
    ],
    ids=" ".join,
)
def test_a_result_that_cannot_be_written_is_no_success(arguments):
    command = [sys.executable, "-m", "phenaki", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output: cannot be written (No space left")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_the_help_is_in_groups(monkeypatch, capsys, arguments):
    code, output, error = phenaki(monkeypatch, capsys, *arguments)
    assert (code, error) == (0, "")
    groups = [line[:-1] for line in output.splitlines() if line.endswith(":") and line[0] != " "]
    assert groups == list(commands.GROUPS)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("smaple", "unknown command smaple; did you mean sample?"),
        ("train_cvivit", "unknown command train_cvivit; did you mean train-cvivit?"),
        ("prepare_data.py", "unknown command prepare_data.py; did you mean prepare?"),
        ("xyz", "unknown command xyz; phenaki --help lists the commands"),
    ],
)
def test_an_unknown_command_names_the_nearest(monkeypatch, capsys, given, line):
    assert phenaki(monkeypatch, capsys, given, "--help") == (2, "", f"error: {line}\n")


def test_the_help_of_a_command_calls_it_as_it_was_called():
    outputs = [
        subprocess.run(
            [sys.executable, *call, "--help"], cwd=ROOT, text=True, capture_output=True, check=True
        ).stdout
        for call in (["-m", "phenaki.commands.main", "train-cvivit"], ["scripts/train_cvivit.py"])
    ]
    assert "    phenaki train-cvivit --config=" in outputs[0]
    assert outputs[0] == outputs[1].replace(
        "python scripts/train_cvivit.py", "phenaki train-cvivit"
    )
    shown = [line.split("=")[0].strip() for line in outputs[0].splitlines() if "  --" in line]
    assert {"--config", "--workdir", "--processes"} <= set(shown)


def test_a_mistake_names_the_commands_as_they_are_called(tmp_path):
    for call, expected in (
        (["-m", "phenaki.commands.main", "inspect"], "phenaki prepare writes one"),
        (["scripts/inspect_data.py"], "scripts/prepare_data.py writes one"),
    ):
        command = [sys.executable, *call, f"--data={tmp_path}"]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (2, "") and expected in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["sample", "train_cvivit"])
def test_a_script_says_how_to_install_what_its_python_lacks(name, tmp_path):
    # -S: without what is installed.
    command = [sys.executable, "-S", ROOT / f"scripts/{name}.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, env={})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    line = rf"error: \S+ lacks phenaki; in {re.escape(str(ROOT))}: "
    line += r"(make setup && )?source \.venv/bin/activate \(docs/install\.md has other ways\)\n"
    assert re.fullmatch(line, done.stderr)
    assert ("make setup" in done.stderr) == (not (ROOT / ".venv/bin/activate").is_file())
    # With a clone on its path, what phenaki needs is still missing.
    done = subprocess.run(command, text=True, capture_output=True, env={"PYTHONPATH": str(ROOT)})
    assert "lacks absl; in" in done.stderr and done.returncode == 2


@pytest.fixture(scope="module")
def completions():
    """The scripts by shell; commands are imported in a process of their own."""
    program = [sys.executable, "-m", "phenaki.commands.main"]
    return {
        shell: subprocess.run(
            [*program, f"--completion={shell}"],
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        for shell in commands.SHELLS
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("phenaki sam", "sample"),
        ("phenaki train-", "train-cvivit train-maskgit train-critic train-student"),
        ("phenaki sample --neg", "--negative="),
        ("phenaki story --prev", "--preview"),
        ("phenaki plan --sea", "--search"),
        ("phenaki train-cvivit --config = cv", "cvivit:"),
        ("phenaki prepare --validat", "--validation="),
    ],
)
def test_bash_completes_commands_flags_and_values(completions, words, expected, tmp_path):
    (tmp_path / "phenaki.bash").write_text(completions["bash"])
    program = (
        f"source phenaki.bash; compopt() {{ :; }}; COMP_WORDS=({words}); "
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _phenaki; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, text=True, capture_output=True)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


def test_every_shell_completes_every_command_and_its_flags(completions):
    for shell, script in completions.items():
        for name in commands.MODULES:
            assert name in script
        for flag in ("unconditional", "guidance", "best_of", "topology", "vocabulary"):
            assert (f"-l {flag}" if shell == "fish" else f"--{flag}") in script


def test_another_shell_is_refused(monkeypatch, capsys):
    line = "error: --completion=csh: must be one of bash, zsh, fish\n"
    assert phenaki(monkeypatch, capsys, "--completion=csh") == (2, "", line)
