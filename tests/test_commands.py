"""`phenaki COMMAND`: every command has a script, a line of the help, and its flags."""

import subprocess
import sys
from pathlib import Path

import pytest

from phenaki.commands import main as commands

ROOT = Path(__file__).parents[1]


def phenaki(monkeypatch, capsys, *arguments):
    """(exit code, stdout, stderr) of the console command."""
    monkeypatch.setattr(sys, "argv", ["phenaki", *arguments])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    return (ended.value.code, *capsys.readouterr())


def test_every_command_has_a_module_a_script_and_a_line_of_the_help():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")} - {"__init__"}
    modules = {path.stem for path in (ROOT / "phenaki/commands").glob("*.py")}
    assert scripts <= set(commands.MODULES.values()) <= modules
    for name, module in commands.MODULES.items():
        if module in scripts:
            assert f'run("{name}")' in (ROOT / f"scripts/{module}.py").read_text()
        (line,) = (x for x in commands.overview().splitlines() if x.split()[:1] == [name])
        assert len(line.split()) > 2 and len(line) <= 120


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
