"""The page of `make demo`: what its columns mean, what is wrong with a sample, whose tokens."""

import json
import re

import numpy as np
import tiny

from phenaki.data.shapes.detector import Verdict
from phenaki.reports import demo
from phenaki.sampling.windows import Scene


def test_a_sample_names_what_is_not_right():
    right, wrong = np.array([True, True]), np.array([True, False])
    verdict = Verdict(right, wrong, wrong, wrong, right)
    assert demo._wrong(verdict, 0) == ""
    assert demo._wrong(verdict, 1) == " (not right: shape, direction, one object)"


def test_the_page_explains_itself_and_says_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SHOWN", 2)
    for run in ("cvivit", "maskgit"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.jsonl").write_text('{"step": 1, "psnr/first": 9.0}\n')
    (tmp_path / "seconds.json").write_text('{"stage 1": 2.0, "stage 2": 3.0}')
    models, scenes = {"of today": tiny.phenaki()}, [Scene("a red circle moves left", 1.4)]
    report = demo.page(models, tmp_path, scenes, count=2, seed=0, known={})
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    head = re.findall(r"<th>(.*?)</th>", page)
    assert head == ["model", "row", *demo.ATTRIBUTES, "start entropy, bits"]
    (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
    for row in scores:  # what the table has is explained below it
        assert f"<b>{row.replace('_', ' ')}</b>" in page
    assert all(f"<b>{name}</b>" in page for name in demo.ATTRIBUTES)
    assert "<h2>Samples: of today</h2>" in page and "<h2>Tokens: of today</h2>" in page
    assert f"phenaki studio --model={tmp_path}/maskgit" in page
