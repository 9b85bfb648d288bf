"""Checks a run or a config, and says what to change where a check fails.

    python scripts/doctor.py --run=runs/cvivit
    python scripts/doctor.py --run=runs/maskgit
    python scripts/doctor.py --config=configs/cvivit.py:small
    python scripts/doctor.py --config=configs/maskgit.py:small --tokenizer=runs/cvivit

Examines a run's newest checkpoint, its log and a batch of its data; then trains fresh networks of
its config on one sample, which they must overfit. Exits 1 if a check fails.
"""

import sys

from absl import flags
from ml_collections import config_flags

from phenaki import cli
from phenaki.commands import training_flags
from phenaki.errors import UserError
from phenaki.io import streams

flags.declare_key_flag(cli.NO_VERIFY.name)
RUN = flags.DEFINE_string("run", None, "the --workdir of a training run of either stage")
CONFIG = config_flags.DEFINE_config_file("config", None, "of either stage, instead of --run")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "stage 1's run or bundle, for --config")
STEPS = flags.DEFINE_integer(
    "steps", 1000, "at most so many per run on one sample; 0 leaves these out", lower_bound=0
)
CONFIG_FIELDS = training_flags.presets("cvivit", "baselines", "maskgit")


def main(argv):
    """Prints a line per check, and advice under those that fail."""
    del argv
    from phenaki.diagnostics import doctor

    if (RUN.value is None) == (CONFIG.value is None):
        raise UserError("give either --run or --config.")
    if RUN.value:
        findings = doctor.examine_run(RUN.value, STEPS.value)
    else:
        findings = doctor.examine_config(CONFIG.value, TOKENIZER.value, STEPS.value)
    passed = failed = 0
    for finding in findings:
        line = f"{'ok  ' if finding.healthy else 'FAIL'}  {finding.check}: {finding.figure}"
        streams.result(line if finding.healthy else f"{line}\n      {finding.advice}")
        passed, failed = passed + finding.healthy, failed + (not finding.healthy)
    streams.result(f"{passed} of {passed + failed} checks passed")
    if failed:
        sys.exit(1)
