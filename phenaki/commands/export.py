"""Exports a trained model: parameters, config and fingerprint; and programs without this package.

    python scripts/export.py --model=runs/maskgit --output=export/model
    python scripts/export.py --model=runs/maskgit --output=export/model --programs --rows=4
    python scripts/export.py --model=runs/cvivit --output=export/tokenizer

The first writes a bundle (Orbax), which every --model takes; a tokenizer's or a critic's run has
one, too, which --tokenizer and --critic take, and so has a student, for --student. --programs adds
encode.stablehlo, decode.stablehlo, of a whole model sample.stablehlo, weights.npz and programs.json
in OUTPUT/programs: they run with JAX alone, on the platforms named (docs/export.md).
"""

from typing import Any

from absl import flags

from phenaki import cli
from phenaki.errors import UserError

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

NAMES = {
    "phenaki": "the model",
    "tokenizer": "the tokenizer",
    "critic": "the critic",
    "student": "the student",
}


def main(argv):
    """Writes the bundle, then the programs."""
    del argv
    import jax
    import jax.numpy as jnp

    from phenaki.io import checkpoint, hub, outputs
    from phenaki.models.load import load_stored

    with outputs.claimed(
        "output", OUTPUT.value, "model", [("model", hub.find(MODEL.value))]
    ) as claim:
        output = claim.directory
        stored = load_stored(MODEL.value)
        if PROGRAMS.value and stored.kind in ("critic", "student"):
            raise UserError(
                f"--programs: are of a whole model or a tokenizer; {MODEL.value} is a "
                f"{stored.kind}."
            )
        if STEPS.value and stored.kind != "phenaki":
            raise UserError(f"--steps: {MODEL.value} is a {stored.kind}, which samples nothing.")
        params = jax.tree.map(lambda x: x.astype(jnp.dtype(DTYPE.value)), stored.params)
        if (output / "programs").is_dir():  # of the model that was here
            outputs.admit("output", output / "programs", "programs")
            outputs.enlist(output / "programs", (), kind="programs", replaced=r".*")
        facts = {**stored.facts, "fingerprint": stored.fingerprint}
        fields = stored.config.to_dict()
        checkpoint.save_bundle(output, params, fields, kind=stored.kind, **facts)
        print(f"{output}: {NAMES[stored.kind]} {stored.fingerprint}, {DTYPE.value}")
        if PROGRAMS.value:
            _write_programs(stored, output / "programs")


def _write_programs(stored, folder):
    from phenaki import export
    from phenaki.models import factory
    from phenaki.models.frozen import Tokenizer
    from phenaki.pipeline import Phenaki

    options = {}
    if stored.kind == "tokenizer":
        spec = factory.video_spec(stored.config)
        network = factory.tokenizer(stored.config)
        model: Any = Tokenizer(network, stored.params["tokenizer"], spec, stored.fingerprint)
    else:
        model = Phenaki(stored.config, stored.params)
        options = {"steps": STEPS.value} if STEPS.value else {}
    made = export.write(folder, model, rows=ROWS.value, platforms=PLATFORMS.value, **options)
    for name, facts in made["programs"].items():
        inputs = ", ".join(f"{key} {shape}" for key, shape in facts["inputs"].items())
        print(f"{folder}/{name}.stablehlo: {inputs} -> {facts['output']}")
