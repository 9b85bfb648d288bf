"""benchmarks/pods.py counts the programs of both checkouts alike, as a plan counts its own."""

import json
import subprocess

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from script_calls import loaded

from phenaki.planning import chips

# A collective of 96 bytes, a product of 64 x 64 x 64, and a kernel.
PROGRAM = """ENTRY %main (x: f32[8], y: bf16[64,64], q: bf16[16,128]) -> f32[16,128] {
  %x = f32[8] parameter(0)
  %y = bf16[64,64] parameter(1)
  %q = bf16[16,128] parameter(2)
  %all = f32[24] all-gather(%x), channel_id=1, dimensions={0}, metadata={op_name="gather"}
  %z = bf16[64,64] dot(%y, %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}, \
backend_config={"estimated_cycles":"7000"}
  ROOT %double.1 = f32[16,128]{1,0:T(8,128)} custom-call(%q), \
custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[16,128]{1,0}}
}
"""


def double(x, y):
    y[...] = 2 * x[...].astype(jnp.float32)


def compiled_into(folder):
    """Writes what a compiled program leaves, but the grids of its kernels."""
    (folder / "schedules").mkdir(parents=True)
    (folder / "program.txt").write_text(PROGRAM)
    (folder / "memory.json").write_text(json.dumps(3 * 2**30))
    name = "179-double.1-71-schedule-analysis_final_bundles.txt"
    (folder / "schedules" / name).write_text("\ttotal scheduled bundles:    100\n")


def test_a_checkouts_program_is_counted_with_its_kernels(tmp_path):
    block = pl.BlockSpec((8, 128), lambda i: (i, 0))
    shape = jax.ShapeDtypeStruct((16, 128), jnp.float32)
    call = pl.pallas_call(
        double, grid=(2,), in_specs=[block], out_specs=block, out_shape=shape, interpret=True
    )

    @jax.jit
    def looped(x):
        return jax.lax.scan(lambda y, _: (y + call(x), None), jnp.zeros(x.shape), length=3)[0]

    jaxpr = jax.make_jaxpr(looped)(jnp.ones((16, 128), jnp.bfloat16)).jaxpr
    with loaded("benchmarks/pods_program.py") as (program, _):
        (tmp_path / "grids.json").write_text(json.dumps(program.kernels(jaxpr)))
    compiled_into(tmp_path)
    chip = chips.TPUS["v5e"]
    with loaded("benchmarks/pods.py") as (pods, _):
        found = pods.figures(tmp_path, chip)
        table = pods.table("toy", found | {"GB received": 192e-9}, found)
    assert found["million cycles of kernels"] == pytest.approx(200e-6)
    assert found["million cycles, all"] == pytest.approx(7200e-6)
    assert found["GB received"] == found["GB gathered"] == pytest.approx(96e-9)
    assert found["modelled seconds"] == pytest.approx(7200 / chip.clock + 96 / chip.link)
    assert found["GiB of memory"] == 3
    assert "| GB received | 1.92e-07 | 9.6e-08 | 0.500 |" in table


def test_a_kept_program_is_counted_per_row_without_compiling(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "x").write_text("1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "x"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tree, check=True)
    with loaded("benchmarks/pods.py") as (pods, _):
        monkeypatch.setattr(pods.metadata, "version", lambda name: "1")
        case = pods.CASES["full-batch"]
        folder = pods.kept(case, tree, False, str(tmp_path))
        assert folder != pods.kept(case._replace(mesh=case.after), tree, False, str(tmp_path))
        assert folder.parent == tmp_path
        compiled_into(folder)
        kernel = [["bfloat16", [16, 128]], ["float32", [16, 128]]], 2
        (folder / "grids.json").write_text(json.dumps([kernel]))
        found = pods.measure(case, tree, False, str(tmp_path))
        (tree / "x").write_text("2")
        assert pods.kept(case, tree, False, str(tmp_path)) is None
    assert found["GB received"] == pytest.approx(96e-9 / 32)
    assert found["GiB of memory"] == 3


def test_frozen_text_has_the_types_of_a_run():
    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    text = {"kernel": shape, "rel_embedding": shape}
    with loaded("benchmarks/pods_program.py") as (module, _):
        from phenaki.planning.programs import Program

        program = Program(len, ({"text": text, "tokenizer": shape}, shape), frozenset())
        (frozen, other) = module.as_run(program).inputs
    assert frozen["text"]["kernel"].dtype == jnp.bfloat16
    assert frozen["text"]["rel_embedding"].dtype == frozen["tokenizer"].dtype == jnp.float32
    assert other is shape
