"""Compiles a program of the checkout on PYTHONPATH for a pod; `pods.py` runs it once per checkout.

    python benchmarks/pods_program.py CASE FOLDER

CASE is `pods.Case` as JSON. FOLDER gets the compiled program, what `pods.py` needs to count its
kernels, and their schedules. Earlier checkouts have functions of a config in place of a workload.
"""

import importlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any


def main(case, folder: Path):
    """Writes program.txt, grids.json, memory.json and schedules/ into `folder`."""
    from phenaki.planning import chips

    schedules = folder / "schedules"
    schedules.mkdir()
    os.environ.update(
        chips.ENVIRONMENT,
        # The arguments that the checkout's own runs have, if any.
        LIBTPU_INIT_ARGS=" ".join(
            (
                *getattr(chips, "OPTIONS", ()),
                "--xla_jf_dump_llo_text=true",
                "--xla_jf_dump_llo_pass_label_regex=final_bundles",
                f"--xla_jf_dump_to={schedules}",
            )
        ),
    )
    import jax

    from phenaki.planning import compiled, programs

    sizes = dict(zip(("data", "fsdp", "sequence", "tensor"), case["mesh"], strict=True))
    mesh = compiled.mesh(chips.parse(case["topology"]), sizes)
    program = as_run(made(case, mesh))
    inputs = programs.place(program, mesh)
    options: dict[str, Any] = {}
    if case["program"] == "train step":
        state = jax.tree.map(lambda x: x.sharding, inputs[0])
        options = dict(donate_argnums=0, out_shardings=(state, None))
    with jax.set_mesh(mesh):
        traced = jax.jit(program.function, **options).trace(*inputs)
        done = traced.lower().compile()
    memory = done.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
    (folder / "program.txt").write_text(done.as_text())
    (folder / "grids.json").write_text(json.dumps(kernels(traced.jaxpr.jaxpr)))
    (folder / "memory.json").write_text(json.dumps(peak))


def made(case, mesh):
    """The `programs.Program` of a case."""
    from configs import cvivit, maskgit

    config, stage1 = maskgit.get_config(case["preset"]), cvivit.get_config("t2v")
    config.text.cached = case["cached"]
    programs: Any = importlib.import_module("phenaki.planning.programs")
    former = not hasattr(programs, "workload")
    training: Any = importlib.import_module(f"phenaki.train.{'stages' if former else 'maskgit'}")
    config = training.with_tokenizer(config, stage1, "")
    train, rows = case["program"] == "train step", mesh.shape["data"] * mesh.shape["fsdp"]
    if former:
        return programs.train_step(config) if train else programs.sampler(config, rows)
    run = programs.workload(config)
    return run.train_step() if train else run.sampler(rows)


def as_run(program):
    """The program with frozen text parameters in the types in which a run holds them."""
    import jax
    import jax.numpy as jnp

    def one(path, x):
        biases = path[-1].key == "rel_embedding"
        return jax.ShapeDtypeStruct(x.shape, jnp.float32 if biases else jnp.bfloat16)

    def tree(given):
        if not isinstance(given, dict) or "text" not in given:
            return given
        return given | {"text": jax.tree_util.tree_map_with_path(one, given["text"])}

    return program._replace(inputs=tuple(map(tree, program.inputs)))


def kernels(jaxpr):
    """[types of a Pallas kernel's arrays, rounds of its grid], of every kernel of a program."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            arrays = [atom.aval for atom in (*equation.invars, *equation.outvars)]
            types = [(str(array.dtype), array.shape) for array in arrays]
            found.append((types, math.prod(map(int, equation.params["grid_mapping"].grid))))
            continue
        for value in equation.params.values():
            for item in value if isinstance(value, list | tuple) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    found += kernels(inner)
    return found


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
