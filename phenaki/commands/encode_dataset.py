"""Encodes a prepared data set once, so that stage 2 trains on tokens and ids instead of pixels.

    python scripts/encode_dataset.py --config=configs/maskgit.py:small --tokenizer=runs/cvivit \\
        --input=data/clips --output=data/codes

Then train with --config.data.source=codes --config.data.sources=data/codes. Size and time are
printed first; --estimate stops there. Run it on every host of a job: each encodes its part of the
files. A stopped run resumes; after a change of tokenizer or data only what changed is encoded
again.
With --config.text.cached=True the embeddings of captions are stored as well, for small sets only.
"""

import functools

from absl import flags
from ml_collections import config_flags

from phenaki import cli
from phenaki.commands import training_flags
from phenaki.progress import Progress

flags.declare_key_flag(cli.NO_VERIFY.name)
CONFIG = config_flags.DEFINE_config_file("config", None, "configs/maskgit.py:VARIANT")
flags.mark_flag_as_required("config")
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "stage 1: the --workdir of its run, or a bundle", required=True
)
INPUT = flags.DEFINE_string("input", None, "what scripts/prepare_data.py wrote", required=True)
OUTPUT = flags.DEFINE_string("output", None, "directory of the tokens", required=True)
BATCH = flags.DEFINE_integer("batch", 8, "clips per call, over this host's devices", lower_bound=1)
ESTIMATE = flags.DEFINE_bool("estimate", False, "only print size and time")

training_flags.define_processes()


def main(argv):
    """Encodes the files that are missing or stale."""
    del argv
    import jax

    from phenaki.io import outputs
    from phenaki.train import encode_dataset, maskgit

    inputs = [("input", INPUT.value), ("tokenizer", TOKENIZER.value)]
    outputs.admit("output", OUTPUT.value, "tokens", inputs)  # before a job is joined
    training_flags.join()
    encoder = maskgit.open_encoder(
        CONFIG.value, TOKENIZER.value, INPUT.value, OUTPUT.value, BATCH.value
    )
    shown = jax.process_index() == 0
    progress = functools.partial(Progress, what="clips", shown=shown)
    encode_dataset.run(encoder, print, progress, ESTIMATE.value)
