"""Work continues where nobody reads what it prints."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from phenaki import cli

def main(argv):
    for number in range(9):
        print("line", number, flush=True)
        sys.stderr.write("progress\\n")
    open(sys.argv[0] + ".done", "x").close()

sys.argv = [sys.argv[0]]
cli.run(main)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


def run(program, **streams):
    code = subprocess.run([sys.executable, program], **streams, timeout=60).returncode
    return code, program.with_name("program.py.done").exists()


def test_a_reader_that_goes_away_stops_nothing(program):
    for name in ("stdout", "stderr"):
        reader, writer = os.pipe()
        os.close(reader)
        assert run(program, **{name: writer}) == (0, True)
        os.close(writer)
        program.with_name("program.py.done").unlink()


def test_a_full_disk_of_the_log_stops_nothing(program):
    with open("/dev/full", "w") as full:
        assert run(program, stdout=full, stderr=full) == (0, True)


def test_closed_streams_stop_nothing_and_take_no_files_place(program):
    shell = ["bash", "-c", f"exec {sys.executable} {program} 0<&- 1>&- 2>&-"]
    assert subprocess.run(shell, timeout=60).returncode == 0
    assert program.with_name("program.py.done").read_bytes() == b""


@pytest.mark.parametrize(
    ("target", "code", "line"),
    [("/dev/full", 2, "error: standard output: cannot be written (No space left on device).\n"),
     (None, 0, "")],
)  # fmt: skip
def test_a_result_that_a_full_disk_did_not_take_is_no_success(tmp_path, target, code, line):
    """A reader that went away has what it wanted."""
    program = tmp_path / "program.py"
    program.write_text(
        "from phenaki import cli\n"
        "from phenaki.io import streams\n"
        "cli.run(lambda argv: streams.result('1' * 100_000))\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    out = writer if target is None else os.open(target, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, program], stdout=out, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (code, line)
    for descriptor in {writer, out}:
        os.close(descriptor)


def test_an_error_keeps_its_code_where_nobody_reads_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from phenaki import cli, errors\n"
        "def main(argv):\n    raise errors.UserError('wrong')\n"
        "cli.run(main)\n"
    )
    with open("/dev/full", "w") as full:
        assert run(program, stdout=full, stderr=full)[0] == 2


@pytest.mark.parametrize("code", [28, 24, 30, 122])  # ENOSPC, EMFILE, EROFS, EDQUOT
def test_what_the_machine_lacks_is_one_line_also_without_a_file(tmp_path, code):
    program = tmp_path / "program.py"
    program.write_text(
        "import os\nfrom phenaki import cli\n"
        f"def main(argv):\n    raise OSError({code}, os.strerror({code}))\n"
        "cli.run(main)\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"error: {os.strerror(code)}\n"


@pytest.mark.parametrize("flag", ["--help", "--version", "--completion=bash", ""])
def test_the_overview_needs_no_reader(flag):
    command = [sys.executable, "-m", "phenaki.commands.main", *filter(None, [flag])]
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (0, "")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    line = "error: standard output: cannot be written (No space left on device).\n"
    assert (done.returncode, done.stderr) == (2, line)
