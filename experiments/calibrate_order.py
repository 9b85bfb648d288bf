"""Calibrates the order in which a model's tokens are decoded best, and stores it in the bundle.

    python experiments/calibrate_order.py --model=runs/bundle

Samples --count clips with the model's own prompts and defaults, finds the positions that tell most
about all others (`phenaki.sampling.calibrate`), and writes them to config.sample.calibrated of
bundle.json, for order=calibrated. About --places x tokens passes of --count rows.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import common
from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import checkpoint, paths

MODEL = flags.DEFINE_string("model", None, "a bundle", required=True)
COUNT = flags.DEFINE_integer("count", 100, "samples", lower_bound=1)
PLACES = flags.DEFINE_integer("places", 5, "positions to find; the rest follow", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)


def main(argv):
    """Calibrates and rewrites bundle.json."""
    del argv
    from phenaki.data import batches
    from phenaki.evaluation import alignment
    from phenaki.pipeline import Phenaki
    from phenaki.sampling.calibrate import calibrated_order

    path = paths.path(MODEL.value) / "bundle.json"
    if not paths.is_file(path):
        raise UserError(f"--model={MODEL.value}: is no bundle; give a folder with bundle.json.")
    model = Phenaki.load(MODEL.value)
    if model.config.data.source != "moving_shapes":
        raise UserError(f"--model={MODEL.value}: prompts are known of moving shapes only.")
    if PLACES.value > (tokens := model.spec.tokens()):
        raise UserError(f"--places={PLACES.value}: must be at most the {tokens} tokens of a clip.")
    world = batches.world(model.config)
    prompts = alignment.prompts_of(world, common.combinations(world, "train", COUNT.value)).texts
    samples = model.sample(prompts, seed=SEED.value).tokens.reshape(len(prompts), -1)
    text, params = model.embed(prompts), {"params": model.params["maskgit"]}

    @jax.jit
    def entropies(tokens):
        logits: Any = model.network.apply(params, tokens, text)
        log_p = jax.nn.log_softmax(logits)
        return -(jnp.exp(log_p) * log_p).sum(-1)

    order = calibrated_order(entropies, samples, model.network.mask_id, PLACES.value)
    checkpoint.update_sample(MODEL.value, {"calibrated": order})
    grid = [tuple(map(int, np.unravel_index(place, model.spec.grid()))) for place in order]
    print(f"{path}: order of (latent frame, row, column) {grid}")


if __name__ == "__main__":
    cli.run(main)
