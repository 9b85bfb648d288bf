"""The loops of docs/modules.md run as they stand, and learn."""

import re
from pathlib import Path

import numpy as np

PAGE = (Path(__file__).parents[1] / "docs/modules.md").read_text()


def test_the_snippets_of_the_page_run_in_order_and_learn(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/modules.md, snippet {number + 1}", "exec"), names)
    history = names["history"]
    assert history[-1] < history[0]
    assert np.isfinite(names["value"])
    assert names["sampled"].shape == names["flat"].shape
    assert 0 <= names["sampled"].min() and names["sampled"].max() < 64
    assert names["video"].shape == names["videos"].shape
    assert names["again"].shape == names["clips"].shape
