"""Trains MaskGIT on the tokens of a trained tokenizer (stage 2).

    python scripts/train_maskgit.py --config=configs/maskgit.py:laptop \\
        --tokenizer=runs/cvivit --workdir=runs/maskgit

Any field of the config can be set: --config.drop_text=0.2. Training resumes from the newest
checkpoint in --workdir. --start fine-tunes a trained model (docs/finetuning.md).
"""

from absl import flags

from phenaki import cli
from phenaki.commands import training_flags

flags.declare_key_flag(cli.NO_VERIFY.name)
CONFIG_FIELDS = training_flags.define_training("maskgit", "maskgit")
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "stage 1: the --workdir of its run, or a bundle", required=True
)
START = flags.DEFINE_string(
    "start",
    None,
    "a whole model's run or bundle, whose parameters this run starts with: fine-tuning",
)


def main(argv):
    """Trains until config.train.steps."""
    del argv
    from phenaki.train import maskgit

    config = training_flags.value("config")
    if START.value:
        config.start = START.value
    observe = training_flags.start()
    maskgit.train(config, TOKENIZER.value, training_flags.value("workdir"), observe=observe)
