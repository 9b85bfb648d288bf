"""Trains a token critic for a trained model, in whose sampling it may then score the tokens.

    python scripts/train_critic.py --config=configs/critic.py:demo \\
        --generator=runs/demo/maskgit --workdir=runs/demo/critic

The critic learns which tokens of a clip the generator sampled; it works with that generator only.
Any field of the config can be set: --config.critic.kind=head. Training resumes from the newest
checkpoint in --workdir.
"""

from absl import flags
from ml_collections import config_flags

from phenaki import cli

flags.declare_key_flag(cli.NO_VERIFY.name)
CONFIG = config_flags.DEFINE_config_file("config", None, "configs/critic.py:VARIANT")
flags.mark_flag_as_required("config")
GENERATOR = flags.DEFINE_string(
    "generator", None, "a bundle, or the --workdir of train_maskgit.py", required=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "where checkpoints, logs and samples go", required=True
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
    from phenaki.train import critic

    observe = speed.observe(PROFILE.value, TRACK.value)
    sharding.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    critic.train(CONFIG.value, GENERATOR.value, WORKDIR.value, observe=observe)
