"""Samples the films of README.md, docs/gallery.md and docs/results.md anew, by the commands there.

    python experiments/draw_films.py

Nothing is chosen: each film is what its command gives at that seed. They replace docs/story.gif and
the files of docs/gallery/.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from phenaki import cli

DOCS = Path(__file__).parents[1] / "docs"
SAMPLE = (sys.executable, "-m", "phenaki.commands.main", "sample")


class Command(NamedTuple):
    """The flags of a `phenaki sample`, and the films that are kept of what it writes."""

    flags: Sequence[str]
    films: Mapping[str, str]  # file that the command writes: name in docs/


def clips(model: str, scale: int, prompts: Mapping[str, str], preset: str = "") -> Command:
    """A clip per prompt, one call; `prompts` are by the names of their films."""
    asked = [f"--prompt={prompt}" for prompt in prompts.values()]
    how = [f"--preset={preset}"] if preset else []
    ends = [f"{name}_{preset}" if preset else name for name in prompts]
    films = {f"sample_{i}.gif": f"gallery/{end}.gif" for i, end in enumerate(ends)}
    return Command([f"--model={model}", f"--scale={scale}", *how, *asked], films)


LAPTOP = {
    "red_circle": "a red circle moves left",
    "green_square": "a green square moves up",
    "yellow_triangle": "a yellow triangle moves right",
    "blue_circle": "a blue circle moves down",
}
COMMANDS = (
    Command(("--model=shapes64", "--scale=4", "--story=shapes"), {"story.gif": "story.gif"}),
    clips(
        "shapes64", 3,
        {
            "two_red_blue": "a red circle moves left and a blue square moves right",
            "two_green_white": "a green triangle moves up and a white circle moves down",
            "white_triangle": "a white triangle moves right",
            "cyan_square": "a cyan square moves up",
        },
    ),
    clips("laptop", 5, LAPTOP),
    clips("laptop", 5, LAPTOP, "videos"),  # as the paper samples: what came before
)  # fmt: skip


def main(argv):
    """Runs the commands and copies their films."""
    del argv
    for command in COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            # In that folder: films hold their command, and no path of this machine.
            subprocess.run([*SAMPLE, "--output=out", *command.flags], cwd=folder, check=True)
            for made, name in command.films.items():
                shutil.copyfile(f"{folder}/out/{made}", DOCS / name)
                print(f"docs/{name}: {(DOCS / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    cli.run(main)
