"""Profiles and the speed of a run: which steps, which parts, which numbers; no harm to the run."""

import re
import warnings

import jax
import pytest
import tiny
import toy
from jax.profiler import ProfileData

from phenaki.errors import UserError
from phenaki.planning import chips, programs, speed
from phenaki.train import logs
from phenaki.train.profiler import Observe, Observer, StepWork

PARTS = {
    "maskgit": {"tokenizer", "text", "maskgit", "optimizer"},
    "tokenizer": {"tokenizer", "optimizer"},
}


# --- which steps


def traced_steps(workdir):
    """The numbers of the steps in the trace of a run."""
    (file,) = (workdir / "profile").rglob("*.xplane.pb")
    data, steps = ProfileData.from_file(str(file)), []  # which has to outlive its parts
    with warnings.catch_warnings(action="ignore"):  # of Python 3.13; as an error it would abort
        for plane in data.planes:
            for line in plane.lines:
                steps += [dict(one.stats)["step_num"] for one in line.events if one.name == "train"]
    return sorted(steps)


def test_the_trace_has_the_steps_that_are_named_and_the_run_is_the_same(tmp_path):
    profiled, plain = tmp_path / "profiled", tmp_path / "plain"
    state = toy.run(profiled, steps=5, observe=Observe((1, 3)))
    assert traced_steps(profiled) == [1, 2]
    assert (state.params["kernel"] == toy.run(plain, steps=5).params["kernel"]).all()
    assert [*map(without_times, logs.read(profiled))] == [*map(without_times, logs.read(plain))]


def without_times(line):
    return {name: value for name, value in line.items() if "seconds" not in name}


def test_a_trace_ends_with_its_run_and_begins_where_it_resumes(tmp_path):
    toy.run(tmp_path, steps=2)
    toy.run(tmp_path, steps=4, observe=Observe((1, 9)))
    assert traced_steps(tmp_path) == [2, 3]


def test_a_trace_of_the_past_is_a_warning(tmp_path, caplog):
    toy.run(tmp_path, steps=2)
    toy.run(tmp_path, steps=4, observe=Observe((0, 2)))
    assert not (tmp_path / "profile").exists()
    assert "--profile=0:2: the run is past these steps, at 2" in caplog.text
    assert caplog.text.count("--profile=") == 1  # no other at the end


def test_a_trace_beyond_the_end_of_a_run_is_a_warning(tmp_path, caplog):
    toy.run(tmp_path, steps=2, observe=Observe((5, 7)))
    assert caplog.text.count("--profile=5:7: the run has ended without these steps") == 1


def test_a_trace_that_cannot_be_written_loses_no_run(tmp_path, caplog):
    toy.run(tmp_path, steps=1)
    (tmp_path / "profile").write_text("in the way")
    state = toy.run(tmp_path, steps=4, observe=Observe((2, 3)))
    assert state.step == 4
    assert f"{tmp_path}/profile: no profile was written" in caplog.text


@pytest.mark.parametrize(
    ("text", "nearest"), [("5", "100:110"), ("5:5", "5:6"), ("7:2", "7:8"), ("-1:3", "100:110")]
)
def test_other_steps_are_refused(text, nearest):
    with pytest.raises(UserError, match=f"--profile={text}: must be .* nearest is {nearest}."):
        speed.observe(text)


def test_steps_of_the_flag():
    assert speed.observe("100:110").profile == (100, 110)
    assert speed.observe("").profile is None


# --- which parts


def products(jaxpr, where=""):
    """The paths of all matrix products, also of those in loops and inner functions."""
    for equation in jaxpr.eqns:
        path = f"{where}/{equation.source_info.name_stack}"
        if equation.primitive.name == "dot_general":
            yield path
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(value, "eqns"):
                yield from products(value, path)


@pytest.mark.parametrize("stage", PARTS)
def test_every_product_of_a_step_belongs_to_a_part(stage):
    config = tiny.tokenizer_config()
    if stage == "maskgit":
        config = tiny.whole_config(text=dict(cached=False))
    program = programs.workload(config).train_step()
    jaxpr = jax.make_jaxpr(program.function)(*program.inputs).jaxpr
    found = {path: PARTS[stage] & set(re.findall(r"\w+", path)) for path in products(jaxpr)}
    assert found and all(found.values())
    stacks = " ".join(str(equation.source_info.name_stack) for equation in jaxpr.eqns)
    assert PARTS[stage] <= set(re.findall(r"\w+", stacks))


# --- which numbers


def test_speed_leaves_out_the_first_step_and_what_lies_between_lines(tmp_path, monkeypatch):
    now = 0.0
    stats = {"peak_bytes_in_use": 3 * 2**30}
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(None), Device(stats)])
    observer = Observer(
        Observe(work=lambda _: StepWork(tokens=100, flops=6e9, peak=1e10)),
        {}, tmp_path, clock=lambda: now,
    )  # fmt: skip
    waited = 0.0
    for number in range(9):
        with observer.step(number, None, waited):
            now += 60.0 if number == 0 else 2.0
            waited += 0.5
        if number in (4, 8):
            values = observer.measure(number + 1, waited)
            assert values == {"tokens_per_second": 50.0, "mfu": 0.3, "device_memory_gib": 3.0}
            now += 1000.0  # a checkpoint
    assert observer.note == "50 tokens/s, 25% waiting for batches, MFU 30.0%, 3.0 GiB"
    assert observer.measure(9, waited) == {}


class Device:
    def __init__(self, stats):
        self.memory_stats = lambda: stats


def test_a_run_logs_its_speed_where_it_is_asked_for(tmp_path):
    toy.run(tmp_path, steps=4, log_every=2, observe=Observe(work=speed.step_work))
    first, last = (line.get("tokens_per_second", 0) for line in logs.read(tmp_path))
    assert first > 0 and last > 0
    assert "mfu" not in logs.read(tmp_path)[-1]  # the peak of this machine is unknown


@pytest.mark.parametrize("config", [tiny.whole_config, tiny.tokenizer_config])
def test_flops_are_those_of_the_model_and_leave_recomputation_out(config, monkeypatch):
    monkeypatch.setattr(speed, "peak_of", lambda kinds: 1e12)
    plain, again, more = config(), config(), config(data=dict(batch=16))
    plain.remat, again.remat = "none", "full"
    works = [speed.step_work(one.to_dict()) for one in (plain, again, more)]
    assert works[0] == works[1] and works[0].peak == 1e12
    assert works[0].flops > 0 and works[2].flops > 1.9 * works[0].flops


def test_a_step_whose_flops_are_unknown_is_trained(monkeypatch, caplog):
    monkeypatch.setattr(speed, "peak_of", lambda kinds: 1e12)
    monkeypatch.setattr(speed, "_flops", lambda fields: 1 / 0)
    assert speed.step_work(tiny.whole_config().to_dict()).flops is None
    assert "no MFU is logged" in caplog.text


def test_tokens_of_clips_and_images():
    config = tiny.whole_config(data=dict(batch=8, image_batch=3))
    assert speed.tokens(config.to_dict()) == 8 * 6 * 2 * 2 + 3 * 2 * 2


def test_peaks_are_of_all_devices_and_of_known_ones_only():
    h100 = chips.GPUS["H100"].flops
    assert speed.peak_of(["NVIDIA H100 80GB HBM3"] * 8) == 8 * h100
    assert speed.peak_of(["NVIDIA A100-SXM4-80GB"]) == chips.GPUS["A100"].flops
    assert speed.peak_of(["TPU v5 lite", "TPU v5"]) == sum(
        chips.TPUS[name].flops for name in ("v5e", "v5p")
    )
    assert speed.peak_of(["cpu"]) is None and speed.peak_of(["TPU v5", "unknown"]) is None
