"""Compares training runs on one page: configs, metrics and samples.

    phenaki compare runs/a runs/b --output=compare.html
    phenaki compare runs/a runs/b --output=compare.html --metric=loss/total --metric=psnr

The page has the fields in which the configs differ, the newest value and a curve of every metric,
and the newest samples. It fetches nothing and runs no script. --output of an earlier call is
replaced. Curves by tenths of the masked fraction are left out unless --metric names them.
"""

from absl import flags

from phenaki import cli
from phenaki.errors import UserError

ARGUMENTS = flags.DEFINE_multi_string("run", [], "a --workdir; --run= may be left out")
OUTPUT = flags.DEFINE_string("output", None, "the HTML file", required=True)
flags.declare_key_flag(cli.NO_VERIFY.name)
METRIC = flags.DEFINE_multi_string("metric", [], "to plot; several times; default: all")


def main(argv):
    """Writes the page."""
    del argv
    from phenaki.io import html_report, outputs
    from phenaki.reports import compare

    runs = ARGUMENTS.value
    if not runs:
        raise UserError("--run is required: the --workdir of each training run.")
    inputs = [("run", run) for run in runs]
    outputs.admit_file("output", OUTPUT.value, html_report.is_page, inputs)
    size = compare.page(runs, METRIC.value).save(OUTPUT.value)
    print(f"{OUTPUT.value}: {len(runs)} runs, {size // 1000} kB")
