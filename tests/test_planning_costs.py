"""The measure of compiled programs: what a device receives, kernels, and the modelled step time."""

import functools

import jax
import jax.numpy as jnp
import pytest
import tiny
from jax.experimental import pallas as pl

from configs import cvivit, maskgit
from phenaki.planning import chips, compiled, costs, programs, schedules, search
from phenaki.train.maskgit import with_tokenizer

TWO_OF_A_SHARD_MAP = """ENTRY %main (x: f32[2]) -> f32[4] {
  %x = f32[2] parameter(0)
  %key = f32[4] all-gather(%x), channel_id=1, dimensions={0}, metadata={op_name="gather"}
  ROOT %value = f32[4] all-gather(%x), channel_id=1, dimensions={0}, metadata={op_name="gather"}
}
"""
# A gather next to the product whose fusion hides it, and one alone in a fusion.
FUSED = """%gathered (x: f32[2,4]) -> f32[4,4] {
  %x = f32[2,4] parameter(0)
  %all = f32[4,4] all-gather(%x), channel_id=1, dimensions={0}, metadata={op_name="first"}
  ROOT %y = f32[4,4] dot(%all, %all), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
%alone (x: f32[2,4]) -> f32[4,4] {
  %x = f32[2,4] parameter(0)
  ROOT %all = f32[4,4] all-gather(%x), channel_id=1, dimensions={0}, metadata={op_name="second"}
}
ENTRY %main (x: f32[2,4]) -> f32[4,4] {
  %x = f32[2,4] parameter(0)
  %y = f32[4,4] fusion(%x), kind=kOutput, calls=%gathered, backend_config={"estimated_cycles":"5"}
  ROOT %z = f32[4,4] fusion(%x), kind=kCustom, calls=%alone
}
"""
SUM = """ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  ROOT %sum = f32[8] all-reduce(%x), channel_id=1, to_apply=%add
}
"""


def test_collectives_that_share_the_channel_of_a_shard_map_all_count():
    assert costs.count(TWO_OF_A_SHARD_MAP).collectives == {"all-gather": (2, 32)}


def test_a_collective_in_several_layouts_counts_once():
    again = FUSED.replace('op_name="second"', 'op_name="first"')
    on_chip = again.replace("ROOT %all = f32[4,4] ", "ROOT %all = f32[4,4]{1,0:T(8,128)S(1)} ")
    for text in (again, on_chip):
        assert costs.count(text).collectives == {"all-gather": (1, 64)}


def test_bytes_inside_a_products_fusion_are_not_outside():
    found = costs.count(FUSED)
    assert found.collectives == {"all-gather": (2, 128)}
    assert found.outside == 64
    assert costs.count(SUM).outside == 2 * 32  # a reduce-scatter and an all-gather


def test_products_take_at_least_the_cycles_of_nine_tenths_of_the_peak():
    work = 2 * 4**3
    assert costs.count(FUSED).cycles == 5  # without a peak: as estimated
    assert costs.count(FUSED, peak=16.0).cycles == pytest.approx(work / 16 / 0.9)
    assert costs.count(FUSED, peak=1000.0).cycles == 5


KERNEL = """%body (q: bf16[2,16,128]) -> f32[2,16,128] {
  %q = bf16[2,16,128] parameter(0)
  ROOT %double.1 = f32[2,16,128]{2,1,0:T(8,128)} custom-call(%q), \
custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[2,16,128]{2,1,0}}
}
ENTRY %main (q: bf16[2,16,128]) -> f32[2,16,128] {
  %q = bf16[2,16,128] parameter(0)
  ROOT %call = f32[2,16,128] call(%q), to_apply=%body
}
"""


def _double(x, y):
    y[...] = 2 * x[...].astype(jnp.float32)


def test_a_kernel_takes_its_bundles_for_every_round_of_its_grid(tmp_path):
    block = pl.BlockSpec((1, 8, 128), lambda b, i: (b, i, 0))
    shape = jax.ShapeDtypeStruct((2, 16, 128), jnp.float32)
    call = pl.pallas_call(
        _double, grid=(2, 2), in_specs=[block], out_specs=block, out_shape=shape, interpret=True
    )

    def looped(x):
        return jax.lax.scan(lambda y, _: (y + call(x), None), jnp.zeros(x.shape), length=3)[0]

    known = schedules.rounds(jax.make_jaxpr(looped)(jnp.ones((2, 16, 128), jnp.bfloat16)).jaxpr)
    assert list(known.values()) == [4]
    name = "179-double.1-71-schedule-analysis_final_bundles.txt"
    (tmp_path / name).write_text("Schedule analysis:\n\ttotal scheduled bundles:    100\n")
    count = functools.partial(schedules.cycles, known=known, scheduled=schedules.bundles(tmp_path))
    assert costs.count(KERNEL, kernel=count).kernels == 400
    with pytest.raises(ValueError, match=r"without known rounds or bundles: double\.2"):
        costs.count(KERNEL.replace("double.1", "double.2"), kernel=count)


def test_the_modelled_step_is_all_cycles_and_what_no_product_hides():
    found = costs.Costs({}, {}, outside=4e11, cycles=2e9, kernels=1e9)
    chip = chips.TPUS["v5e"]._replace(clock=1.5e9, link=2e11)
    assert compiled.modelled_seconds(found, chip) == 4.0


def test_text_parameters_have_the_types_that_a_run_loads():
    config = with_tokenizer(maskgit.get_config("t2v"), cvivit.get_config("t2v"), "")
    text = programs.workload(config).train_step().inputs[1]["text"]["encoder"]
    assert text["layers_0"]["mlp"]["wo"]["kernel"].dtype == jnp.bfloat16
    assert text["relpos_bias"]["rel_embedding"].dtype == jnp.float32
    tiny_config = tiny.whole_config()
    tiny_config.text.cached = False  # random, in float32
    text = programs.workload(tiny_config).train_step().inputs[1]["text"]["encoder"]
    assert text["layers_0"]["mlp"]["wo"]["kernel"].dtype == jnp.float32


def test_a_tpu7x_has_two_devices_a_chip():
    topology = chips.parse("tpu7x:4x4x4")
    assert (topology.chips, topology.devices, topology.hosts) == (64, 128, 16)


# --- search


@pytest.fixture(scope="module")
def candidates():
    workload = programs.workload(tiny.whole_config())
    with pytest.MonkeyPatch.context() as patch:  # a few of each are enough
        patch.setattr(search, "REMATS", ("none", "full"))
        patch.setattr(search, "SCALES", (1, 2))
        patch.setattr(search, "ACCUMULATE", (1, 2))
        yield workload, search.search(workload, chips.parse("v5e:2x2"))


def test_search_varies_mesh_remat_batch_and_micro_batches(candidates):
    workload, found = candidates
    assert {c.workload.remat for c in found} == set(search.REMATS)
    assert {c.workload.accumulate for c in found} == {1, 2}
    sizes = {c.workload.samples["video"] / workload.samples["video"] for c in found}
    assert sizes == {1, 2}
    assert len({tuple(c.mesh.values()) for c in found}) > 1
    times = [c.sample_seconds for c in found]
    assert times == sorted(times)


def test_micro_batches_take_less_memory_and_more_traffic(candidates):
    workload, found = candidates
    mesh = dict(data=1, fsdp=2, sequence=2, tensor=1, slices=1)
    one, two = (
        next(
            c for c in found
            if c.mesh == mesh and c.workload.remat == "none" and c.workload.accumulate == accumulate
            and c.workload.samples == workload.samples
        )
        for accumulate in (1, 2)
    )  # fmt: skip
    assert two.memory < one.memory
    assert two.exchange > one.exchange
    assert two.compute == one.compute


def test_no_candidate_beats_one_of_the_front(candidates):
    _, found = candidates
    front = search.pareto(reversed(found))
    for one in front:
        assert not any(
            c.sample_seconds < one.sample_seconds and c.memory < one.memory for c in found
        )
    assert all(
        any(f.sample_seconds <= c.sample_seconds and f.memory <= c.memory for f in front)
        for c in found
    )
    assert len(search.table(front).splitlines()) == len(front) + 1


def test_what_exceeds_the_memory_does_not_fit(candidates):
    _, found = candidates
    memory = found[0].memory
    chip = chips.TPUS["v5e"]
    assert search.fits(found[0], chip._replace(memory=1.01 * memory / search.USABLE))
    assert not search.fits(found[0], chip._replace(memory=1.01 * memory))
