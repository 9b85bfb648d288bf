"""Exports a trained model: parameters, config and fingerprint; and programs without this package.

    python scripts/export.py --model=runs/maskgit --output=export/model
    python scripts/export.py --model=runs/maskgit --output=export/model --programs --rows=4

The first writes a bundle (Orbax), which every --model takes. --programs adds encode.stablehlo,
decode.stablehlo, sample.stablehlo, weights.npz and programs.json in OUTPUT/programs: they run with
JAX alone, on the platforms named (docs/export.md).
"""

from absl import flags

from phenaki import cli

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string(
    "model", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
OUTPUT = flags.DEFINE_string("output", None, "folder for what is written", required=True)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of the bundle's parameters")
PROGRAMS = flags.DEFINE_bool("programs", False, "write StableHLO, too")
ROWS = flags.DEFINE_integer("rows", 1, "samples per call of a program", lower_bound=1)
PLATFORMS = flags.DEFINE_list("platforms", "cpu,cuda,tpu", "that the programs are to run on")
STEPS = flags.DEFINE_integer("steps", None, "of sampling; default: the model's", lower_bound=1)


def main(argv):
    """Writes the bundle, then the programs."""
    del argv
    import jax.numpy as jnp

    from phenaki import export
    from phenaki.io import outputs
    from phenaki.pipeline import Phenaki

    with outputs.claimed("output", OUTPUT.value, "model", [("model", MODEL.value)]) as claim:
        output = claim.directory
        model = Phenaki.load(MODEL.value)
        model.save(output, jnp.dtype(DTYPE.value), fingerprint=model.fingerprint)
        print(f"{output}: the model {model.fingerprint}, {DTYPE.value}")
        if PROGRAMS.value:
            _write_programs(export, model, output / "programs")


def _write_programs(export, model, folder):
    options = {"steps": STEPS.value} if STEPS.value else {}
    made = export.write(folder, model, rows=ROWS.value, platforms=PLATFORMS.value, **options)
    for name, facts in made["programs"].items():
        inputs = ", ".join(f"{key} {shape}" for key, shape in facts["inputs"].items())
        print(f"{folder}/{name}.stablehlo: {inputs} -> {facts['output']}")
