"""Says what is wrong with a run, and what to change.

    python scripts/doctor.py --run=runs/cvivit
    python scripts/doctor.py --run=runs/maskgit

Looks at the newest checkpoint, the log and a batch of the run's own data. Exits 1 if a check fails.
"""

import sys

from absl import flags

from phenaki import cli

RUN = flags.DEFINE_string("run", None, "a --workdir of training, of either stage", required=True)


def main(argv):
    """Prints a line per check, and advice under those that fail."""
    del argv
    from phenaki import doctor

    findings = doctor.examine(RUN.value)
    for finding in findings:
        print(f"{'ok  ' if finding.healthy else 'FAIL'}  {finding.check}: {finding.figure}")
        if not finding.healthy:
            print(f"      {finding.advice}")
    sick = sum(not finding.healthy for finding in findings)
    print(f"{len(findings) - sick} of {len(findings)} checks passed")
    if sick:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
