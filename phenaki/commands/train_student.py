"""Trains a student of a trained model, which draws that model's clips in one pass or two.

    python scripts/train_student.py --model=checkpoints/laptop --output=runs/student
    python scripts/sample.py --model=checkpoints/laptop --student=runs/student --steps=2 \\
        --output=out --prompt="a red circle moves left"

The student learns from samples that the model itself draws of many prompts: those of --prompts, or
what it was trained on. It works with that model only. Writes a bundle; nothing is resumed. Not in
the paper: see docs/sampling.md.
"""

import dataclasses

from absl import flags

from phenaki import cli
from phenaki.errors import UserError

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string(
    "model",
    None,
    "the teacher: a bundle, the --workdir of train_maskgit.py, or laptop or shapes64, as released",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "folder for what is written", required=True)
PROMPTS = flags.DEFINE_string("prompts", "", "a text file of prompts, one a line")
MAX_PROMPTS = flags.DEFINE_integer("max_prompts", 256, "how many of them", lower_bound=1)
SAMPLES = flags.DEFINE_integer(
    "samples", 768, "of every prompt", lower_bound=2, upper_bound=100_000
)
STORIES = flags.DEFINE_integer(
    "stories", 3072, "whose later windows are learned", lower_bound=0, upper_bound=10_000_000
)
STEPS = flags.DEFINE_integer("steps", 4000, "of training", lower_bound=2)
BATCH = flags.DEFINE_integer("batch", 64, "clips a step", lower_bound=2)
RATE = flags.DEFINE_float("rate", 1e-3, "peak of the learning rate")
LATENT = flags.DEFINE_integer(
    "latent", 3, "numbers that decide a clip: about as many as clips of a prompt differ in",
    lower_bound=1, upper_bound=16,
)  # fmt: skip
SEED = flags.DEFINE_integer(
    "seed", 0, "of samples and training", lower_bound=0, upper_bound=2**32 - 1
)
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "of the student's parameters"
)


def main(argv):
    """Samples, trains and writes."""
    del argv
    from phenaki.io import checkpoint, outputs, shipped
    from phenaki.schema import config, rules

    rules.check("--rate", RATE.value, config.OPTIM["rate"].rule)
    model = shipped.find(MODEL.value, shipped.MODELS)
    checkpoint.check_replaced(OUTPUT.value, "student")
    inputs = [("model", model), *([("prompts", PROMPTS.value)] if PROMPTS.value else [])]
    with outputs.claimed("output", OUTPUT.value, "model", inputs) as claim:
        _train(claim.directory)


def _train(output):
    import jax
    import jax.numpy as jnp

    from phenaki.io import checkpoint
    from phenaki.models import load
    from phenaki.pipeline import Phenaki
    from phenaki.train import pairs, student

    model = Phenaki.load(MODEL.value)
    load.warn_unfinished(MODEL.value, model.config.to_dict(), "student")
    if not model.has_text:
        raise UserError(f"--model={MODEL.value}: takes no text; a student is told what to draw.")
    prompts = pairs.prompts_of(model, MAX_PROMPTS.value, PROMPTS.value)
    if BATCH.value > (clips := SAMPLES.value * len(prompts.first)):
        raise UserError(
            f"--batch={BATCH.value}: must be at most the {clips} clips that are drawn, "
            f"--samples={SAMPLES.value} of {len(prompts.first)} prompts."
        )
    options = student.StudentOptions(
        steps=STEPS.value, batch=BATCH.value, rate=RATE.value, latent=LATENT.value,
        samples=SAMPLES.value, stories=STORIES.value, seed=SEED.value,
    )  # fmt: skip
    data = pairs.make(
        model, prompts, each=options.samples, stories=options.stories, size=options.latent,
        seed=options.seed,
    )  # fmt: skip
    made = student.train(model, prompts, data, options)
    params = jax.tree.map(lambda x: x.astype(jnp.dtype(DTYPE.value)), made.params)
    facts = dict(
        generator=model.generator,
        sizes=dict(latent=options.latent, hidden=options.hidden),
        trained=dataclasses.asdict(options) | {"prompts": len(prompts.first)},
    )
    checkpoint.save_bundle(
        output, {"student": params}, model.config.to_dict(), kind="student", **facts
    )
    print(f"{output}: a student of {model.generator}, {len(prompts.first)} prompts")
