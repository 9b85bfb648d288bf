"""Shares a model: a folder with safetensors, config.json and a model card, also on the hub.

    phenaki push --model=runs/maskgit --output=shared/shapes --prompt="a red circle moves left"
    phenaki push --model=runs/maskgit --repo=ORG/NAME --prompt="a red circle moves left"

The model may be whole, a tokenizer or a critic: a run or a bundle. --output may be in a bucket.
Every --prompt is a sample film, one per prompt, not chosen. --repo also uploads the folder to the
hub, where it is private unless --public is given (pip install 'phenaki[hub]', then hf auth login).
--model=FOLDER or ORG/NAME loads it again (docs/export.md).
"""

import contextlib
import json
import tempfile
from pathlib import Path

from absl import flags

from phenaki import __version__, cli
from phenaki.errors import UserError
from phenaki.io import outputs, paths

flags.declare_key_flag(cli.NO_VERIFY.name)
MODEL = flags.DEFINE_string("model", None, "a bundle or the --workdir of a run", required=True)
OUTPUT = flags.DEFINE_string("output", None, "folder for the shared model; or give --repo alone")
REPO = flags.DEFINE_string("repo", None, "ORG/NAME on the hub, to upload it to")
PUBLIC = flags.DEFINE_bool("public", False, "a new --repo can be seen by everyone")
PROMPT = flags.DEFINE_multi_string("prompt", [], "of a sample film; may be given several times")
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0, upper_bound=2**64 - 1)
LICENCE = flags.DEFINE_string("license", None, "of the model, such as apache-2.0")
SCORES = flags.DEFINE_list("scores", None, "JSON of evaluate.py; default: the model's scores.json")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of the parameters")


def main(argv):
    """Writes the folder, then uploads it."""
    del argv
    if not (OUTPUT.value or REPO.value):
        raise UserError("--output or --repo is required: where the model is shared.")
    from phenaki.io import hub

    if REPO.value:
        hub.split(REPO.value)  # before the model is loaded
    with contextlib.ExitStack() as stack:
        if OUTPUT.value:
            inputs = [("model", hub.find(MODEL.value))]
            claim = outputs.claimed("output", OUTPUT.value, "shared model", inputs)
            folder = stack.enter_context(claim).directory
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phenaki-")))
        fingerprint = _write(folder)
        if REPO.value:
            if not isinstance(folder, Path):
                raise UserError(f"--output={folder}: a bucket's folder is not uploaded to --repo.")
            message = f"Share model {fingerprint} (phenaki {__version__})"
            print(hub.push(folder, REPO.value, public=PUBLIC.value, message=message))


def _write(folder):
    """Writes the shared model: its fingerprint."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from phenaki.io import artifacts, checkpoint, shared_model
    from phenaki.models.load import load_stored
    from phenaki.reports.model_card import card, check_scores

    stored = load_stored(MODEL.value)
    if PROMPT.value and not (stored.kind == "phenaki" and stored.config.text):
        raise UserError(f"--prompt={PROMPT.value[0]}: {MODEL.value} takes no text.")
    scores = _scores()
    check_scores(scores, stored.fingerprint)
    params = jax.tree.map(lambda x: x.astype(jnp.dtype(DTYPE.value)), stored.params)
    stored = stored._replace(params=jax.tree.map(lambda x: x.astype(np.float32), params))
    fields, vocabulary = stored.config.to_dict(), None
    if stored.vocabulary is not None:
        fields["text"]["vocabulary"] = shared_model.VOCABULARY
        vocabulary = paths.path(stored.vocabulary)
    facts = {"kind": stored.kind, **stored.facts, "fingerprint": stored.fingerprint}
    shared_model.begin(folder)
    checkpoint.save_shared(folder, params, fields, vocabulary, **facts)
    samples = _samples(folder / shared_model.SAMPLES, stored) if PROMPT.value else []
    text = card(
        REPO.value or folder.name,
        stored,
        place=REPO.value or str(OUTPUT.value),
        licence=LICENCE.value,
        scores=scores,
        samples=samples,
        sampled={"seed": SEED.value, "phenaki": __version__},
    )
    with artifacts.atomic(folder / shared_model.CARD) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"{folder}: {stored.kind} {stored.fingerprint}, {DTYPE.value}")
    return stored.fingerprint


def _samples(folder, stored):
    """Writes a film per prompt: (file, prompt) of each."""
    from phenaki.io import sample_files
    from phenaki.io.clean_text import clean
    from phenaki.pipeline import Phenaki
    from phenaki.sampling import options

    model = Phenaki(stored.config, stored.params)
    texts = [clean(prompt) for prompt in PROMPT.value]
    videos = model.generate(texts, seed=SEED.value)
    facts = {"model": model.fingerprint, "seed": SEED.value, "phenaki": __version__}
    facts["options"] = options.facts(model.defaults)
    folder.mkdir(parents=True, exist_ok=True)
    names = sample_files.write(folder, videos, texts, model.spec.fps, facts=facts)
    return [(f"{folder.name}/{name}.mp4", text) for name, text in zip(names, texts, strict=True)]


def _scores():
    """{name: content} of the files with scores."""
    from phenaki.io import shipped

    default = shipped.find(MODEL.value, shipped.MODELS) / "scores.json"
    own = [default] if paths.is_file(default) else []
    files = [paths.path(file) for file in SCORES.value] if SCORES.value else own
    found = {}
    for file in files:
        try:
            found[file.name] = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"--scores={file}: is no JSON ({error}).") from error
    return found
