"""Writes docs/config.md, the page of all config fields: python -m phenaki.reports.config_page"""

from pathlib import Path

from phenaki.configs import critic, cvivit, maskgit
from phenaki.schema import help

PAGE = Path(__file__).parents[2] / "docs/config.md"
SECTIONS = {
    "tokenizer": ("Tokenizer: `configs/cvivit.py`, `configs/baselines.py`", cvivit, "mit"),
    "maskgit": ("MaskGIT: `configs/maskgit.py`", maskgit, "t2v"),
    "critic": ("Token critic: `configs/critic.py`", critic, "t2v"),
}


def tables() -> str:
    """What follows the page's introduction."""
    parts = []
    for kind, (title, module, name) in SECTIONS.items():
        table = help.table(kind, {f"`{name}`": module.get_config(name).to_dict()})
        parts.append("\n".join([f"## {title}", "", *table, ""]))
    return "\n".join(parts)


def split(page: str) -> tuple[str, str]:
    """(introduction, tables) of the page."""
    introduction, heading, rest = page.partition("## ")
    return introduction, heading + rest


if __name__ == "__main__":
    PAGE.write_text(split(PAGE.read_text())[0] + tables())
