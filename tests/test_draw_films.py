"""The films of README.md and the gallery, and the commands that are printed there."""

import re
import subprocess
from pathlib import Path

import script_calls

PROGRAM = "experiments/draw_films.py"
with script_calls.loaded(PROGRAM) as (_module, _):
    COMMANDS = _module.COMMANDS
DOCS = Path(__file__).parents[1] / "docs"


def shown(command):
    """The line that the page prints."""
    pairs = (flag.split("=", 1) for flag in command.flags)
    flags = (f'{name}="{value}"' if " " in value else f"{name}={value}" for name, value in pairs)
    return f"phenaki sample --output=out {' '.join(flags)}"


def test_the_gallery_prints_each_command_and_shows_its_films():
    page = (DOCS / "gallery.md").read_text()
    printed = [line for line in page.splitlines() if line.startswith("phenaki sample")]
    assert sorted(printed) == sorted(map(shown, COMMANDS))
    films = [name for command in COMMANDS for name in command.films.values()]
    assert sorted(re.findall(r"\]\((.*?\.gif)\)", page)) == sorted(films)
    assert all((DOCS / name).is_file() for name in films)
    assert sorted(films) == sorted(
        ["story.gif", *(f"gallery/{path.name}" for path in (DOCS / "gallery").iterdir())]
    )


def test_films_are_copied_from_where_the_commands_write_them(tmp_path, monkeypatch):
    def run(command, cwd, check):
        assert check
        assert command[3:5] == ["sample", "--output=out"]
        output = Path(cwd) / "out"
        output.mkdir()
        one = next(x for x in COMMANDS if list(x.flags) == command[5:])
        for name, film in one.films.items():
            (output / name).write_text(film)

    monkeypatch.setattr(subprocess, "run", run)
    (tmp_path / "gallery").mkdir()
    with script_calls.loaded(PROGRAM) as (module, _):
        monkeypatch.setattr(module, "DOCS", tmp_path)
        module.main([])
    names = [name for command in COMMANDS for name in command.films.values()]
    assert all((tmp_path / name).read_text() == name for name in names)
