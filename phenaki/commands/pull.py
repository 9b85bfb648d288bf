"""Copies a shared model to a folder, with its checksums verified.

    phenaki pull --model=ORG/NAME@REVISION --output=models/shapes
    phenaki pull --model=gs://BUCKET/shapes --output=models/shapes

A model of the hub is fetched (pip install 'phenaki[hub]'); --model=ORG/NAME in any other command
does so, too, and keeps it in the hub's cache. REVISION is a branch, a tag or, to pin it, a commit.
"""

from absl import flags

from phenaki import cli
from phenaki.errors import UserError
from phenaki.io import outputs, paths

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string("model", None, "ORG/NAME[@REVISION], or a shared folder", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder for the copy", required=True)


def main(argv):
    """Copies and verifies."""
    del argv
    from phenaki.io import hub, shared_model
    from phenaki.models.load import load_stored

    inputs = [("model", MODEL.value)]
    with outputs.claimed("output", OUTPUT.value, "shared model", inputs) as claim:
        source = paths.path(MODEL.value)
        if not (paths.is_remote(source) or source.exists()):
            source = hub.fetch(MODEL.value)
        if not shared_model.is_one(source):
            raise UserError(f"--model={MODEL.value}: is no shared model; phenaki push makes one.")
        shared_model.copy(source, claim.directory)
        stored = load_stored(claim.directory)
        print(f"{claim.directory}: {stored.kind} {stored.fingerprint}")
