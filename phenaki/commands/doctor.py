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
from phenaki.errors import UserError

flags.declare_key_flag(cli.NO_VERIFY.name)
RUN = flags.DEFINE_string("run", None, "the --workdir of a training run of either stage")
CONFIG = config_flags.DEFINE_config_file("config", None, "of either stage, instead of --run")
TOKENIZER = flags.DEFINE_string("tokenizer", None, "stage 1's run or bundle, for --config")
STEPS = flags.DEFINE_integer(
    "steps", 1000, "at most so many per run on one sample; 0 leaves these out", lower_bound=0
)


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
    for finding in findings:
        print(f"{'ok  ' if finding.healthy else 'FAIL'}  {finding.check}: {finding.figure}")
        if not finding.healthy:
            print(f"      {finding.advice}")
    failed = sum(not finding.healthy for finding in findings)
    print(f"{len(findings) - failed} of {len(findings)} checks passed")
    if failed:
        sys.exit(1)
