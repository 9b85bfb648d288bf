"""Trains a video tokenizer (stage 1).

    python scripts/train_cvivit.py --config=configs/cvivit.py:laptop --workdir=runs/cvivit

Any field of the config can be set: --config.optim.rate=1e-3. Training resumes from the newest
checkpoint in --workdir. --start fine-tunes a trained model (docs/finetuning.md).
"""

from absl import flags

from phenaki import cli
from phenaki.commands import training_flags

flags.declare_key_flag(cli.NO_VERIFY.name)
CONFIG_FIELDS = training_flags.define_training("tokenizer", "cvivit", "baselines")
START = flags.DEFINE_string(
    "start", None, "a tokenizer's run or bundle, whose parameters this run starts with: fine-tuning"
)


def main(argv):
    """Trains until config.train.steps."""
    del argv
    from phenaki.train import tokenizer

    config = training_flags.value("config")
    if START.value:
        config.start = START.value
    observe = training_flags.start()
    tokenizer.train(config, training_flags.value("workdir"), observe=observe)
