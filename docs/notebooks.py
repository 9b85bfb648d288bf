"""A hook of mkdocs: the notebooks of examples/notebooks become pages, and files to download."""

from pathlib import Path

import jupytext
from mkdocs.structure.files import File

FOLDER = Path(__file__).parents[1] / "examples/notebooks"


def on_files(files, config):
    """Adds a page and an .ipynb per notebook."""
    for path in sorted(FOLDER.glob("*.py")):
        notebook = jupytext.read(path, fmt="py:percent")
        download = f"[Download this page as a notebook]({path.stem}.ipynb)\n\n"
        page = jupytext.writes(notebook, fmt="md").split("---\n", 2)[-1].lstrip()
        title, _, rest = page.partition("\n")
        content = {
            "md": f"{title}\n\n{download}{rest}",
            "ipynb": jupytext.writes(notebook, "ipynb"),
        }
        for suffix, text in content.items():
            name = f"notebooks/{path.stem}.{suffix}"
            files.append(File.generated(config, name, content=text))
    return files
