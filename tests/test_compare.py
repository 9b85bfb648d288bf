"""`phenaki compare`: a page about several runs, inert, and one line for what is no run."""

import json

import numpy as np
import pytest
import script_calls
import tiny

from phenaki.errors import UserError
from phenaki.io import checkpoint, media
from phenaki.reports import compare

HOSTILE = "<script>alert(1)</script>"


def run(directory, rate, losses):
    directory.mkdir(parents=True)
    config = tiny.tokenizer_config(optim={"rate": rate}).to_dict()
    config["data"]["sources"] = HOSTILE
    checkpoint.save_config(directory, config)
    lines = [{"step": i + 1, "seconds": 1.0, "loss/total": x} for i, x in enumerate(losses)]
    lines[-1] |= {"loss/masked_10": 1.0, HOSTILE: 0.5}
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (directory / "samples").mkdir()
    media.write_png(directory / "samples/0000002.png", np.zeros((8, 8, 3), np.uint8))
    return directory


@pytest.fixture
def runs(tmp_path):
    return [run(tmp_path / "one", 1e-3, [3.0, 2.5]), run(tmp_path / "two", 2e-3, [3.0, 1.25])]


def test_a_page_shows_differences_newest_values_curves_and_samples(runs, tmp_path, capsys):
    output = tmp_path / "page.html"
    script_calls.call("compare.py", *map(str, runs), f"--output={output}")
    assert "2 runs" in capsys.readouterr().out
    page = output.read_text()
    assert "<td>optim.rate</td><td>0.001</td><td>0.002</td>" in page
    assert "optim.warmup" not in page  # equal
    assert '<td>loss/total</td><td class="number">2.5</td><td class="number">1.25</td>' in page
    assert page.count("<svg") == 2 and "masked_10" not in page
    assert page.count("data:image/png") == 2 and "one, step 2" in page
    assert "<script" not in page and "&lt;script" in page
    script_calls.call("compare.py", f"--run={runs[0]}", f"--output={output}")  # replaces it
    assert "All fields are equal" in output.read_text()


def test_what_others_wrote_into_a_run_and_what_is_not_finite_is_left_out(tmp_path):
    one = run(tmp_path / "one", 1e-3, [float("nan")] * 2)
    (one / "samples/zz.png").write_bytes(b"mine")
    with (one / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "note": "mine", "psnr": null}\n')
    compare.page([one]).save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "loss/total</h3>\n<p>No value is finite.</p>" in page
    assert page.count("data:image/png") == 1 and "note" not in page and "psnr" not in page


def test_metrics_are_chosen_by_name(runs):
    report = compare.page(runs, ["loss/masked_10"])
    assert sum(block.count("<svg") for block in report._blocks) == 1
    with pytest.raises(UserError, match="--metric=psnr: no run has logged it; there are loss/to"):
        compare.page(runs, ["psnr"])


def test_what_is_no_run_is_one_line(runs, tmp_path):
    with pytest.raises(UserError, match="none: is not a run"):
        compare.page([*runs, tmp_path / "none"])
    (runs[0] / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="one: has logged nothing yet"):
        compare.page(runs)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    with pytest.raises(UserError, match="exists, and is not of this command"):
        script_calls.call("compare.py", str(runs[1]), f"--output={mine}")
    with pytest.raises(UserError, match="--run is required"):
        script_calls.call("compare.py", f"--output={tmp_path / 'page.html'}")


def test_runs_of_one_name_are_told_apart(tmp_path):
    twins = [run(tmp_path / x / "cvivit", 1e-3, [1.0]) for x in "ab"]
    names = compare._names([str(path) for path in (*twins, twins[0])])
    assert len(set(names)) == 3
