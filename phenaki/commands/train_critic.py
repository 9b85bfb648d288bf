"""Trains a token critic for a trained model, in whose sampling it may then score the tokens.

    python scripts/train_critic.py --config=configs/critic.py:demo \\
        --generator=runs/demo/maskgit --workdir=runs/demo/critic

The critic learns which tokens of a clip the generator sampled; it works with that generator only.
Any field of the config can be set: --config.critic.kind=head. Training resumes from the newest
checkpoint in --workdir.
"""

from absl import flags

from phenaki import cli
from phenaki.commands import training_flags

flags.declare_key_flag(cli.NO_VERIFY.name)
CONFIG_FIELDS = training_flags.define_training("critic", "critic")
GENERATOR = flags.DEFINE_string(
    "generator", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)


def main(argv):
    """Trains until config.train.steps."""
    del argv
    from phenaki.train import critic

    observe = training_flags.start()
    critic.train(
        training_flags.value("config"),
        GENERATOR.value,
        training_flags.value("workdir"),
        observe=observe,
    )
