"""Trains a video tokenizer (stage 1).

    python scripts/train_cvivit.py --config=configs/cvivit.py:laptop --workdir=runs/cvivit

Any field of the config can be set: --config.optim.rate=1e-3. Training resumes from the newest
checkpoint in --workdir. --start fine-tunes a trained model (docs/finetuning.md).
"""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "configs/cvivit.py:VARIANT")
flags.mark_flag_as_required("config")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "where checkpoints, logs and samples go", required=True
)
START = flags.DEFINE_string(
    "start", None, "a tokenizer's run or bundle, whose parameters this run starts with: fine-tuning"
)

PROFILE = flags.DEFINE_string(
    "profile", "", "FIRST:END, steps to trace for xprof, such as 100:110; see docs/speed.md"
)
TRACK = flags.DEFINE_enum(
    "track", "", ["", "wandb", "trackio"], "send the metrics there, too; see docs/launch.md"
)
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0; see docs/launch.md")
PROCESSES = flags.DEFINE_integer("processes", 0, "of the job, where JAX does not find them itself")
PROCESS = flags.DEFINE_integer("process", -1, "index of this process, from 0")


def main(argv):
    """Trains until config.train.steps."""
    del argv
    from phenaki import sharding
    from phenaki.planning import speed
    from phenaki.train import tokenizer

    if START.value:
        CONFIG.value.start = START.value
    observe = speed.observe(PROFILE.value, TRACK.value)
    sharding.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    tokenizer.train(CONFIG.value, WORKDIR.value, observe=observe)
