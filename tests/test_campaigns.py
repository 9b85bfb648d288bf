"""Campaigns run as their docstrings say: as a script, by a path, without any setting."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "campaigns"
CAMPAIGNS = {path.stem: path for path in FOLDER.glob("*.py")}
HELPERS = {path.stem for path in (FOLDER.parent / "helpers").glob("*.py")} | {"phenaki"}
COMMAND = "python tests/campaigns/{}.py"
SCRIPTS = sorted(
    name for name, path in CAMPAIGNS.items() if COMMAND.format(name) in path.read_text()
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_campaign_finds_its_helpers(name):
    """`environment`, which other campaigns import, puts them on the path: it comes before them."""
    imported = []
    for node in ast.parse(CAMPAIGNS[name].read_text()).body:
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append(str(node.module).split(".")[0])
    ours = [one for one in imported if one in HELPERS or one in CAMPAIGNS]
    assert not ours or ours[0] in CAMPAIGNS


def test_the_campaigns_are_seen():
    assert {"mutants", "soak", "fuzz_media"} <= set(SCRIPTS)
