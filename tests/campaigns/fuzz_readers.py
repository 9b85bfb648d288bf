"""Damages thousands of files that are read back as numbers: weights, models, runs, caches, records.

python tests/campaigns/fuzz_readers.py [COUNT [SEED]]

COUNT damaged copies (2,160) over all readers. Each must be refused in one line or read as it was;
never a traceback, other numbers where a checksum guards them, much memory, or no end. Prints a line
per reader; exits with 1 if a check fails.
"""

import collections
import faulthandler
import os
import sys
import tempfile
from pathlib import Path

import environment  # noqa: F401  it makes the helpers importable

# isort: split
import stored_inputs
from absl import logging


def main(count: int, seed: int) -> int:
    """The exit code; a crash of a library ends the process with its stack."""
    faulthandler.enable()
    logging.set_verbosity(logging.FATAL)  # warnings of damaged checkpoints and windows
    each, wrong, total = -(-count // len(stored_inputs.READERS)), 0, 0
    for name in stored_inputs.READERS:
        verdicts = collections.Counter()
        with tempfile.TemporaryDirectory() as work:
            for how, verdict, details in stored_inputs.campaign(name, Path(work), each, seed):
                verdicts[verdict] += 1
                if verdict == "wrong":
                    print(f"  {name}, {how}: {details}"[:300])
        wrong, total = wrong + verdicts["wrong"], total + each
        print(f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(verdicts.items())))
    print(f"{total} damaged copies over {len(stored_inputs.READERS)} readers, {wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(*map(int, [*sys.argv[1:], *("2160", "0")[len(sys.argv) - 1 :]])))
