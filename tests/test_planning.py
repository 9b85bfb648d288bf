"""Plans: work and bytes from shapes agree with the paper, the compiler and the devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import cvivit, maskgit
from phenaki import sharding
from phenaki.blocks import attention_impl
from phenaki.data.host_rows import HostRows
from phenaki.errors import UserError
from phenaki.planning import chips, compiled, costs, markdown, meshes, plan, programs, trace
from phenaki.planning.programs import workload
from phenaki.train import maskgit as maskgit_training
from phenaki.train import tokenizer as tokenizer_training


def stage_2(name="t2v"):
    return maskgit_training.with_tokenizer(maskgit.get_config(name), cvivit.get_config("t2v"), "")


# --- work


def test_the_papers_work():
    run = workload(stage_2())
    clip, image = plan.forward(run), plan.forward(run, frames=1)
    assert clip == pytest.approx(5.00e12, rel=0.01)
    assert image == pytest.approx(0.855e12, rel=0.01)
    assert 3 * 512 * (0.8 * clip + 0.2 * image) == pytest.approx(6.41e15, rel=0.01)
    # The step has no gradient of the text, which the rule of three counts.
    flops = plan.work(run)
    rule = 3 * (run.samples["video"] * clip + run.samples["image"] * image)
    assert 0.98 * rule < flops["MaskGIT"] < rule
    assert plan.forward(workload(stage_2("nuwa"))) == pytest.approx(2.45e12, rel=0.01)
    assert plan.forward(workload(cvivit.get_config("t2v"))) == pytest.approx(163e9, rel=0.02)


def test_work_is_that_of_plain_attention_on_any_platform(monkeypatch):
    config = stage_2()
    config.model.depth = config.tokenizer.space_depth = config.tokenizer.time_depth = 1
    here = plan.work(workload(config))
    monkeypatch.setattr(attention_impl, "platform", lambda: "tpu")
    assert plan.work(workload(config)) == here


def test_stage_1s_work_per_clip():
    per_clip = sum(plan.work(workload(cvivit.get_config("mit"))).values()) / 128
    assert per_clip == pytest.approx(3.8e12, rel=0.1)


@pytest.mark.parametrize(
    "convolution",
    [
        dict(window_strides=(1, 1), padding="SAME"),
        dict(window_strides=(2, 2), padding="SAME"),
        dict(window_strides=(1, 1), padding=((2, 1), (1, 2)), lhs_dilation=(2, 2)),
        dict(window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 2)),
    ],
)
def test_convolutions_are_counted_as_xla_counts_them(convolution):
    def function(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **convolution)

    inputs = jnp.ones((2, 9, 11, 3)), jnp.ones((3, 3, 3, 5))
    given = sum(trace.flops(function, *inputs).values())
    assert given == jax.jit(function).lower(*inputs).cost_analysis()["flops"]


def test_loops_count_every_round_and_equal_products_once():
    def function(x, w):
        def body(x, _):
            return x @ w, None

        once = (x @ w).sum() + (x @ jax.lax.stop_gradient(w)).max()
        return jax.lax.scan(body, x, None, length=7)[0].sum() + once

    inputs = jnp.ones((4, 8)), jnp.ones((8, 8))
    assert trace.flops(function, *inputs) == {"other": 8 * 2 * 4 * 8 * 8}
    text = jax.jit(function).lower(*inputs).compile().as_text()
    assert sum(costs.count(text).flops.values()) in (8 * 512, 9 * 512)


def test_recomputation_is_seen():
    config = tiny.whole_config()
    config.model.update(depth=3)
    plain = sum(plan.work(workload(config)).values())
    config.remat = "full"
    program = programs.workload(config).train_step()
    again = sum(trace.flops(program.function, *program.inputs).values())
    assert 1.1 < again / plain < 1.34


def test_collectives_are_counted_with_their_bytes():
    mesh = jax.make_mesh((8,), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    x = jax.ShapeDtypeStruct((64, 4), jnp.float32, sharding=split)

    def function(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: y + x.sum(0), x[0])

    gather = jax.jit(lambda x: x + 0, out_shardings=whole).lower(x).compile().as_text()
    assert costs.count(gather).collectives == {"all-gather": (1, 64 * 4 * 4)}


# What the TPU compiler writes of jax.lax.fori_loop(3, 10, ...), shortened.
LOOP = """%body (t: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %t = (s32[], f32[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %y = f32[8,8] get-tuple-element(%t), index=1
  %z = f32[8,8] dot(%y, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %next = (s32[], f32[8,8]) tuple(%i, %z)
}
%condition (t: (s32[], f32[8,8])) -> pred[] {
  %limit = s32[] constant(10)
  %t = (s32[], f32[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}
ENTRY %main (x: f32[8,8]) -> (s32[], f32[8,8]) {
  %x = f32[8,8] parameter(0)
  %three = s32[] constant(3)
  %start = s32[] copy(%three)
  %given = (s32[], f32[8,8]) tuple(%start, %x)
  ROOT %done = (s32[], f32[8,8]) while(%given), condition=%condition, body=%body
}
"""


def test_the_compiler_s_estimates_are_summed_outside_of_fusions():
    estimate = 'backend_config={"estimated_cycles":"5"}'
    text = f"""%part (x: f32[2]) -> f32[2] {{
  %x = f32[2] parameter(0)
  ROOT %y = f32[2] negate(%x), {estimate}
}}
ENTRY %main (x: f32[2]) -> f32[2] {{
  %x = f32[2] parameter(0)
  %first = f32[2] fusion(%x), kind=kLoop, calls=%part, {estimate}
  ROOT %second = f32[2] call(%first), to_apply=%part
}}
"""
    assert costs.count(text).cycles == 10
    looped = LOOP.replace("rhs_contracting_dims={0}", "rhs_contracting_dims={0}, " + estimate)
    assert costs.count(looped).cycles == 35


def test_loops_whose_rounds_the_compiler_leaves_out():
    assert sum(costs.count(LOOP).flops.values()) == 7 * 2 * 8**3
    computed = LOOP.replace("%start = s32[] copy(%three)", "%start = s32[] add(%three, %three)")
    assert sum(costs.count(computed).flops.values()) == 10 * 2 * 8**3  # at most
    unlimited = computed.replace("%limit = s32[] constant(10)", "%limit = s32[] add(%i, %i)")
    with pytest.raises(ValueError, match="without a known number of rounds"):
        costs.count(unlimited)
    endless = LOOP.replace("direction=LT", "direction=NE")
    with pytest.raises(ValueError, match="without a known number of rounds"):
        costs.count(endless)


def test_a_kernel_whose_attributes_take_several_lines_ends_no_computation():
    text = """\
body (p: bf16[2,4,8,16]) -> bf16[2,4,8,16] {
  %q = bf16[2,4,8,16] parameter(0)
  %splash_mha_fwd_residuals.1 = bf16[2,4,8,16] custom-call(%q, %q, %q), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"block": "{\\"block_q\\": 8}"
}}, metadata={op_name="attention"}
  ROOT %dot.1 = bf16[2,4,8,8] dot(%q, %q), lhs_contracting_dims={3}, metadata={op_name="after it"}
}

ENTRY main (p: bf16[2,4,8,16]) -> bf16[2,4,8,16] {
  %p = bf16[2,4,8,16] parameter(0)
  ROOT %call.1 = bf16[2,4,8,16] call(%p), to_apply=%body
}
"""
    product = 2 * 2 * 4 * 8 * 8 * 16
    assert costs.count(text).flops == {"attention": 2 * product, "after it": product}


def test_a_collective_that_overlaps_several_fusions_counts_once():
    part = """%part.{0} (x: f32[2]) -> f32[4] {{
  %x = f32[2] parameter(0)
  ROOT %all_gather_with_sharded_gradient.{0} = f32[4] all-gather(%x), channel_id=7, dimensions={{0}}
}}
"""
    text = part.format(0) + part.format(1)
    text += """ENTRY %main (x: f32[2]) -> f32[4] {
  %x = f32[2] parameter(0)
  %first = f32[4] fusion(%x), kind=kCustom, calls=%part.0
  ROOT %second = f32[4] fusion(%x), kind=kCustom, calls=%part.1
}
"""
    assert costs.count(text).collectives == {"all-gather": (1, 16)}
    apart = text.replace("channel_id=7", "channel_id=8", 1)
    assert costs.count(apart).collectives == {"all-gather": (2, 32)}


def test_sums_of_which_each_device_keeps_its_part():
    text = """%all-reduce-scatter.1 (x: f32[8]) -> f32[2] {
  %x = f32[8] parameter(0)
  %sum = f32[8] all-reduce(%x), channel_id=7, to_apply=%add
  ROOT %part = f32[2] dynamic-slice(%sum), dynamic_slice_sizes={2}
}
ENTRY %main (x: f32[8]) -> f32[2] {
  %x = f32[8] parameter(0)
  ROOT %part = f32[2] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""
    assert costs.count(text).collectives == {"reduce-scatter": (1, 32)}
    moved = {"reduce-scatter": {"bytes": 32.0}, "all-reduce": {"bytes": 8.0}}
    assert compiled.received(moved) == 48


@pytest.mark.parametrize(
    "sizes",
    [dict(data=2, fsdp=1, sequence=4), dict(data=2, fsdp=4), dict(data=2, fsdp=2, tensor=2)],
    ids=["sequence", "fsdp", "tensor"],
)
def test_devices_share_the_work_and_repeat_none(sizes):
    config = tiny.whole_config()
    config.video.update(height=32, width=32)  # 16 tokens a frame, which four devices share
    program = programs.workload(config).train_step()
    whole = sum(trace.flops(program.function, *program.inputs).values())
    each = compiled.measure(program, sharding.make_mesh(**dict(tensor=1) | sizes))["flops"]
    assert 0.95 < 8 * each / whole < 1.15


# --- bytes and meshes


def test_bytes_are_those_of_the_devices():
    config = tiny.tokenizer_config(mesh=dict(data=2, fsdp=2, tensor=2))
    sizes = dict(data=2, fsdp=2, sequence=1, tensor=2, slices=1)
    held = meshes.memory(workload(config), sizes)
    mesh = sharding.make_mesh(**sizes)
    stage = tokenizer_training.make_stage(config)
    state_sharding = sharding.shardings(jax.eval_shape(stage.init, jax.random.key(0)), mesh)
    state = jax.jit(stage.init, out_shardings=state_sharding)(jax.random.key(0))
    first = jax.devices()[0]

    def on_first(tree):
        shards = (s for x in jax.tree.leaves(tree) for s in x.addressable_shards)
        return sum(shard.data.nbytes for shard in shards if shard.device == first)

    assert held["parameters"] == on_first(state.params)
    assert held["optimiser"] == on_first(state.opt_state)
    assert held["average"] == on_first(state.ema)


def test_activations_grow_with_the_batch_and_shrink_with_remat():
    config = tiny.whole_config()
    config.model.update(depth=8)
    one = dict(data=1, fsdp=1, sequence=1, tensor=1, slices=1)
    few = meshes.activations(workload(config), one)
    config.data.batch *= 4
    assert 3.5 < meshes.activations(workload(config), one) / few < 4.5
    config.remat = "full"
    assert meshes.activations(workload(config), one) < 2.5 * few


@pytest.mark.parametrize("config", [stage_2(), stage_2("nuwa"), cvivit.get_config("mit")])
@pytest.mark.parametrize("name", ["v5e:16x16", "v4:4x4x8", "gpu:64xH100", "v6e:16x16*2"])
def test_a_mesh_for_every_pod(config, name):
    topology, run = chips.parse(name), workload(config)
    sizes, why = meshes.choose(run, topology)
    assert sizes in list(meshes.legal(run, topology))
    assert why.startswith(f"{sizes['data'] * sizes['fsdp']} devices split the batch")
    assert sizes["data"] % topology.slices == 0


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("v5e:4x4x4", "a grid of v5e has 2 numbers, such as v5e:16x16"),
        ("v5p-100", "must be a TPU with its grid"),
        ("v7:2x2", "known chips"),
        ("gpu:12xH100", "nearest is gpu:8xH100"),
    ],
)
def test_unknown_topologies_are_explained(name, nearest):
    with pytest.raises(UserError, match=nearest):
        chips.parse(name)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        *[("v5litepod-256", "v5e:16x16"), ("v6e-8", "v6e:2x4"), ("v4-8", "v4:2x2x1")],
        *[("v5p-256", "v5p:4x4x8"), ("v4-512", "v4:4x8x8")],
    ],
)
def test_types_of_google_cloud_are_grids(name, grid):
    assert chips.parse(name) == chips.parse(grid)


def test_a_mesh_that_does_not_fit_names_the_nearest():
    with pytest.raises(UserError, match=r"nearest is \{'data': 4, 'fsdp': 2, 'sequence': 1"):
        sharding.make_mesh(data=2, fsdp=3, tensor=1)
    with pytest.raises(UserError, match=r"slices=3 must divide the data axis, 4; nearest is 2"):
        sharding.make_mesh(data=4, fsdp=2, tensor=1, slices=3)
    mesh = sharding.make_mesh(data=-1, fsdp=2, tensor=1)
    with pytest.raises(UserError, match=r"batch=12 must be .*config\.mesh\.sequence=2"):
        sharding.check_batch("config.data.batch", 12, mesh)


# --- programs


def test_positions_split_over_devices_train_as_one_device_does():
    config = tiny.whole_config()
    config.video.update(height=32, width=32)  # 16 tokens a frame: space is split, time is not
    program = programs.workload(config).train_step()
    random = np.random.default_rng(0)

    def draw(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return random.integers(1, 200, leaf.shape).astype(leaf.dtype)
        return random.normal(size=leaf.shape, scale=0.1).astype(leaf.dtype)

    frozen, batch = (jax.tree.map(draw, tree) for tree in program.inputs[1:3])
    stage = maskgit_training.make_stage(config, frozen)
    state = stage.init(jax.random.key(0))
    key = jax.random.key(1)
    _, alone = jax.jit(stage.step)(state, frozen, batch, key)
    mesh = sharding.make_mesh(data=2, fsdp=1, tensor=1, sequence=4)
    spread = jax.device_put(state, sharding.shardings(state, mesh))
    rows = {kind: HostRows.whole(size) for kind, size in workload(config).samples.items()}
    with jax.set_mesh(mesh):
        _, together = jax.jit(stage.step)(
            spread,
            jax.device_put(frozen, sharding.shardings(frozen, mesh)),
            sharding.global_batch(batch, mesh, rows),
            key,
        )
    for name in alone:
        np.testing.assert_allclose(alone[name], together[name], rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.skipif(not compiled.available(), reason="libtpu is not installed (extra tpu)")
@pytest.mark.parametrize("topology", ["v5e:2x2", "v4:2x2x1"])
def test_a_tiny_step_and_sampler_compile_for_a_tpu(topology, run_script, tmp_path):
    done = run_script(
        "scripts/plan.py",
        "--config=configs/maskgit.py:demo",
        "--stage1=configs/cvivit.py:demo",
        f"--topology={topology}",
        "--compile",
        "--json",
        f"--results={tmp_path / 'results.json'}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["compiled"]
    assert 0.99 < found["train step"]["ratio"] < 1.05
    assert found["train step"]["memory"] < 16 * 2**30
    assert found["train step"]["collectives"]["all-reduce"]["number"] > 0
    assert found["train step"]["exchange_seconds"] > 0
    assert found["train step"]["cycles"] > 0
    assert found["sampler"]["flops"] > 0


def test_the_script_plans_gpus(run_script):
    done = run_script(
        "scripts/plan.py",
        "--config=configs/cvivit.py:demo",
        "--topology=gpu:8xH100",
    )
    assert done.returncode == 0, done.stderr
    assert "mesh           data 8, fsdp 1" in done.stdout
    assert "steps/s" in done.stdout
    done = run_script(
        "scripts/plan.py", "--config=configs/cvivit.py:demo", "--topology=v5e:4x4",
        "--config.mesh.data=1", "--config.mesh.sequence=4", "--config.mesh.tensor=4",
        "--config.tokenizer.patch=(2,7,7)",
    )  # fmt: skip
    assert "MB/s of pixels over 4 hosts, 4 of which load each sample" in done.stdout, done.stderr
    demo = ("scripts/plan.py", "--config=configs/cvivit.py:demo")
    done = run_script(*demo, "--topology=v5e:4x4", "--config.mesh.data=7")
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.mesh={'data': 7, " in done.stderr and "nearest is {'data': 16, " in done.stderr
    done = run_script(*demo, "--topology=v5e:4x4", "--config.mesh.slices=2")
    assert "config.mesh.slices=2: v5e:4x4 has 1; nearest is config.mesh.slices=1." in done.stderr
    done = run_script(*demo, "--topology=gpu:1xH100", "--config.data.batch=200000")
    assert done.returncode == 2 and "steps/s" not in done.stdout
    assert "has 74.51 GiB; --search looks for a mesh, remat policy, batch" in done.stderr
    done = run_script("scripts/plan.py", "--config=configs/cvivit.py:mit", "--topology=v5e:4")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_a_step_takes_the_longer_of_its_products_and_its_traffic():
    run = workload(tiny.whole_config())
    topology = chips.parse("v5e:4x2")
    sizes = dict(data=2, fsdp=4, sequence=1, tensor=1, slices=1)
    made = plan.make(run, topology, mfu=0.4, sizes=sizes)
    slow = topology._replace(chip=topology.chip._replace(link=1e3))
    bound = plan.make(run, slow, mfu=0.4, sizes=sizes)
    assert bound["compute_seconds"] == made["compute_seconds"]
    times = [1 / plan_["steps_per_second"] for plan_ in (made, bound)]
    assert times == pytest.approx(
        [max(made["compute_seconds"], made["exchange_seconds"]), bound["exchange_seconds"]]
    )


def test_hosts_that_share_samples_read_them_each():
    run, topology, read = workload(tiny.whole_config()), chips.parse("gpu:16xH100"), {}
    flops = plan.work(run)
    for sequence in (8, 16):
        sizes = dict(data=16 // sequence, fsdp=1, sequence=sequence, tensor=1, slices=1)
        made = plan.make(run, topology, mfu=0.4, sizes=sizes, flops=flops)
        per_step = made["bytes_per_second"] / made["steps_per_second"]
        read[sequence] = (made["hosts_per_row"], pytest.approx(per_step))
    pixels = 8 * 11 * 16 * 16 * 3
    assert read == {8: (1, pixels), 16: (2, 2 * pixels)}


def test_traffic_counts_parameters_once_for_clips_and_images_together():
    config = tiny.whole_config()
    config.data.image_batch = 8
    config.text.cached = False
    state, frozen, _, _ = programs.workload(config).train_step().inputs
    size, text = (4 * programs.count(tree) for tree in (state.params, frozen["text"]))
    sizes = dict(data=1, fsdp=4, sequence=1, tensor=1, slices=1)
    assert meshes.traffic(workload(config), sizes) == pytest.approx(3 / 4 * (3 * size + text))
    config.dtype = "bfloat16"
    assert meshes.traffic(workload(config), sizes) == pytest.approx(3 / 8 * (3 * size + text))
    sizes.update(data=4, fsdp=1)
    assert meshes.traffic(workload(config), sizes) == pytest.approx(3 / 8 * 2 * size)


def test_a_row_of_the_table():
    topology = chips.parse("v5e:2x2")
    made = plan.make(workload(tiny.tokenizer_config()), topology, mfu=0.4)
    line = markdown.row("cvivit:tiny", topology, made)
    assert line.count("|") == markdown.HEAD.splitlines()[0].count("|")
    assert "| - | - |" in line
