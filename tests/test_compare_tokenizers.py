"""Table 3 in miniature, at its smallest: it trains, measures, writes, and resumes."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from phenaki.reports import scoreboard

ROOT = Path(__file__).parents[1]


def test_two_systems_are_compared_and_a_second_call_trains_nothing(run_script, tmp_path):
    flags = ["--steps=2", "--seeds=1", "--count=2", "--systems=cvivit,vit", "--optimizer=muon"]
    flags.append(f"--workdir={tmp_path}")
    done = run_script("experiments/compare_tokenizers.py", *flags, quick=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "table3.json").read_text())
    run = json.loads((tmp_path / "cvivit_0/config.json").read_text())
    assert report["optimizer"] == run["optim"]["name"] == "muon"
    assert report["lpips"] == "LPIPS-proxy"
    rows = report["systems"]
    assert [rows[name]["tokens"] for name in ("cvivit", "vit")] == [[24], [44]]
    assert all(5 < rows[name]["first"][0] < 30 for name in rows)
    assert (tmp_path / "table3.png").stat().st_size > 1000
    assert "| ViT, per frame | 1,156,672 | 44 |" in (tmp_path / "table3.md").read_text()
    again = run_script("experiments/compare_tokenizers.py", *flags, quick=True)
    assert "training:" not in again.stderr
    assert json.loads((tmp_path / "table3.json").read_text()) == report
    other = run_script("experiments/compare_tokenizers.py", "--steps=3", *flags[1:])
    assert (other.returncode, "Traceback" in other.stderr) == (2, False)
    assert "is a run of 2 steps; give --steps=2" in other.stderr


def test_an_unknown_system_is_one_line(run_script, tmp_path):
    done = run_script(
        "experiments/compare_tokenizers.py", "--systems=vqvae", f"--workdir={tmp_path}"
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "'vqvae' must be one of cvivit, vit, conv, laion3d" in done.stderr


@pytest.mark.parametrize(
    ("results", "first"), [("table3_mini", "cvivit"), ("table3_losses", "C-ViViT")]
)
def test_the_scoreboard_shows_results_with_titles_and_earlier_ones(results, first, tmp_path):
    shutil.copyfile(ROOT / f"benchmarks/results/{results}.json", tmp_path / "table3.json")
    report = mock.Mock()
    scoreboard._table3(report, tmp_path)
    _, rows = report.table.call_args.args
    assert rows[0][:3] == [first, 1_150_624, 24]
