"""Trains a video tokenizer (stage 1).

    python scripts/train_cvivit.py --config=configs/cvivit.py:laptop --workdir=runs/cvivit

Any field of the config can be set: --config.optim.rate=1e-3. A run that stands in --workdir goes
on.
"""

from absl import flags
from ml_collections import config_flags

from phenaki import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "configs/cvivit.py:VARIANT")
flags.mark_flag_as_required("config")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "where checkpoints, logs and samples go", required=True
)


def main(argv):
    """Trains until config.train.steps."""
    del argv
    from phenaki.train import stages

    stages.train_tokenizer(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    cli.run(main)
