"""The benchmark for accelerators, rehearsed at tiny sizes on a CPU."""

import json

import pytest

SCRIPT = "benchmarks/accelerator.py"
# A machine with a GPU need not have these; the last one is measured only where it is installed.
ABSENT = ("tensorflow", "tensorflow_datasets", "seqio", "h5py", "torch")
PARTS = {"matmul", "kernels", "maskgit", "cvivit", "sample", "tokenizer", "peer"}


@pytest.fixture
def rehearse(run_script, tmp_path):
    """Runs the script where some packages cannot be imported; (process, path of the results)."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for name in ABSENT:
        (packages / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n")
    output = tmp_path / "results" / "tiny.json"

    def run(*arguments):
        path = f"{packages}:."
        options = ("--size=tiny", f"--output={output}", *arguments)
        return run_script(SCRIPT, *options, quick=True, PYTHONPATH=path), output

    return run


@pytest.mark.slow
def test_every_part_is_measured_once_and_a_stopped_run_resumes(rehearse):
    process, output = rehearse("--parts=matmul")
    assert process.returncode == 0, process.stderr
    first = json.loads(output.read_text())
    assert set(first["parts"]) == {"matmul"}
    process, _ = rehearse()
    assert process.returncode == 0, process.stderr
    report = json.loads(output.read_text())
    parts = report["parts"]
    assert set(parts) == PARTS and parts["matmul"] == first["parts"]["matmul"]
    assert "matmul: has a result" in process.stdout
    assert report["jax"] and report["device"] and report["size"] == "tiny"
    for case in parts["kernels"]["attention"]:
        errors = [value for name, value in case.items() if name.startswith("error_")]
        assert len(errors) == 4 and max(errors) < parts["kernels"]["bar"]
    for name in ("maskgit", "cvivit"):
        assert parts[name]["finite"] and parts[name]["clips"] == 2 and parts[name]["tflop"] > 0
    assert parts["sample"]["clip_seconds"] > 0 and parts["sample"]["story_frames_per_second"] > 0
    assert parts["tokenizer"]["encode"] > 0 and parts["tokenizer"]["decode"] > 0
    assert parts["peer"]["missing"] == "no torch here"


def test_what_cannot_be_measured_costs_nothing_else(rehearse):
    process, output = rehearse("--parts=kernel")
    assert process.returncode == 2 and "did you mean kernels?" in process.stderr.lower()
    assert not output.exists()
    output.parent.mkdir()
    other = dict(date="2026-01-01", size="paper", parts=dict(matmul=dict(tflops=700)))
    output.write_text(json.dumps(other, indent=2))
    process, _ = rehearse("--parts=matmul")
    assert process.returncode == 2 and "results of another size" in process.stderr
    assert json.loads(output.read_text())["parts"]["matmul"]["tflops"] == 700
