"""The model card of a shared model: what its files know, as Markdown with the hub's fields."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import yaml

from phenaki.errors import UserError
from phenaki.models.load import Stored

WHAT = {
    "phenaki": "A text-to-video model: C-ViViT tokenizer, MaskGIT and text encoder of Phenaki "
    "(arXiv 2210.02399), in JAX.",
    "tokenizer": "A video tokenizer: stage 1 of Phenaki (arXiv 2210.02399), in JAX. Clips become "
    "discrete tokens and back; it samples nothing by itself.",
    "critic": "A token critic for one Phenaki model: it scores which sampled tokens to keep.",
    "student": "A student of one Phenaki model: it draws that model's clips in one pass or two.",
}
USE = {
    "phenaki": """from phenaki.pipeline import Phenaki

model = Phenaki.load({place})
videos = model.generate([{prompt!r}], seed=0)  # float32 [1 f h w 3] in [0, 1]""",
    "tokenizer": """from phenaki.models.frozen import Tokenizer

tokenizer = Tokenizer.load({place})
again = tokenizer.reconstruct(videos)  # float32 [b f h w 3] in [0, 1]""",
    "critic": """critic = model.load_critic({place})  # of the model that it was trained for
videos = model.generate([{prompt!r}], seed=0, critic=critic)""",
    "student": """student = model.load_student({place})  # of the model that it was made of
videos = model.generate([{prompt!r}], seed=0, student=student, steps=2)""",
}
_MARKS = {ord(mark): f"\\{mark}" for mark in "\\`*_[]|#!"} | {
    ord(mark): f"&#{ord(mark)};" for mark in "<>&"
}
LIMITS = """It shows what its training data shows, with that data's gaps and biases, and nothing
else; words that its captions did not have mean nothing to it. Samples are synthetic: say so where
you show them, and do not pass them off as recordings of people or events. The paper's authors
released no weights for such concerns (section 6); these are not the paper's weights."""


def card(
    name: str,
    stored: Stored,
    *,
    place: str,
    licence: str | None = None,
    scores: Mapping[str, Any] | None = None,
    samples: Sequence[tuple[str, str]] = (),
    sampled: Mapping[str, Any] | None = None,
) -> str:
    """README.md of the model `name`.

    Args:
        place: what loads it: its name on the hub, or its folder.
        licence: an identifier of SPDX; None: not given, which the card says.
        scores: {file name: its JSON}, as evaluation writes it or nested numbers by row.
        samples: (file, prompt) of each film.
        sampled: how they were made.
    """
    prompt = samples[0][1] if samples else "a caption"
    parts = [
        f"# {_plain(name)}\n\n{WHAT[stored.kind]}",
        "```python\n" + USE[stored.kind].format(place=json.dumps(place), prompt=prompt) + "\n```",
        _samples(samples, sampled),
        "## Networks\n\n" + _networks(stored),
        "## Training\n\n" + _training(stored),
        "## Scores\n\n" + _scores(scores or {}),
        "## Licence\n\n" + (licence or "None was given: ask whoever shared it before using it."),
        "## Limits and responsible use\n\n" + LIMITS,
    ]
    head = yaml.safe_dump(_fields(stored, licence), sort_keys=False)
    return f"---\n{head}---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _fields(stored: Stored, licence: str | None) -> dict[str, Any]:
    """What the hub reads: library, licence, pipeline, tags."""
    fields: dict[str, Any] = {"library_name": "phenaki"}
    if licence:
        fields["license"] = licence
    if stored.kind == "phenaki" and stored.config.text:
        fields["pipeline_tag"] = "text-to-video"
    tags = dict.fromkeys(["phenaki", "jax", "flax", "video-generation", stored.kind])
    return fields | {"tags": list(tags)}


def _plain(text: Any) -> str:
    """`text` in one line that is no Markdown and no HTML."""
    return " ".join(str(text).split()).translate(_MARKS)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _samples(samples: Sequence[tuple[str, str]], sampled: Mapping[str, Any] | None) -> str:
    if not samples:
        return ""
    films = [f"- [{_plain(prompt)}]({file})" for file, prompt in samples]
    how = ", ".join(f"{key} {_plain(value)}" for key, value in (sampled or {}).items())
    return (
        "## Samples\n\n"
        + "\n".join(films)
        + f"\n\nOne per prompt, not chosen ({how}); the .json of each says how it was made."
    )


def _networks(stored: Stored) -> str:
    rows = []
    for network, tree in stored.params.items():
        leaves = jax.tree.leaves(tree)
        rows.append([f"{network}.safetensors", f"{sum(leaf.size for leaf in leaves):,}"])
    fields = stored.config.to_dict()
    clip = fields.get("video") or {}
    size = ", ".join(f"{key} {value}" for key, value in clip.items())
    return (
        _table(["file", "parameters"], rows)
        + f"\n\nClips: {_plain(size)}. Fingerprint: {stored.fingerprint}. All sizes: config.json."
    )


def _training(stored: Stored) -> str:
    fields, facts = stored.config.to_dict(), stored.facts
    data = fields.get("data") or {}
    known = {
        "data": data.get("source"),
        "sets": None if data.get("source") == "moving_shapes" else data.get("sources"),
        "steps": facts.get("step") or (fields.get("train") or {}).get("steps"),
        "clips per step": data.get("batch"),
        "learning rate": (fields.get("optim") or {}).get("rate"),
        "seed": facts.get("seed", fields.get("seed")),
        "seconds": facts.get("seconds"),
        "command": facts.get("command"),
    }
    return _table(["", ""], [[k, v] for k, v in known.items() if v not in (None, "", [], {})])


def check_scores(scores: Mapping[str, Any], fingerprint: str) -> None:
    """Checks that `scores`, {file name: its JSON}, may be on the card of that model.

    Raises:
        UserError: they are of another model, or no scores.
    """
    for file, found in scores.items():
        known = found if isinstance(found, dict) else {}
        rows = known.get("records", list(known.values()))
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            raise UserError(f"--scores={file}: holds no scores of evaluate.py or demo.py.")
        for of in (_find(row.get("settings"), "fingerprint") for row in rows):
            if of not in (None, fingerprint):
                raise UserError(
                    f"--scores={file}: is of model {of}, but this one is {fingerprint}."
                )


def _scores(scores: Mapping[str, Any]) -> str:
    tables = [f"From {_plain(file)}:\n\n{_score_table(x)}" for file, x in scores.items()]
    return "\n\n".join(tables) or "Not measured."


def _score_table(found: Mapping[str, Any]) -> str:
    if "records" not in found:
        columns = list(dict.fromkeys(key for row in found.values() for key in row))
        rows = [[row, *(of.get(key, "") for key in columns)] for row, of in found.items()]
        return _table(["", *map(_plain, columns)], rows)
    rows = []
    for record in found["records"]:
        network = f"{record.get('extractor')} {record.get('checksum')}"
        sampler = json.dumps(record.get("sampler"), sort_keys=True)
        rows.append([*(record.get(k) for k in ("name", "value", "n", "seed")), network, sampler])
    return _table(["measure", "value", "samples", "seed", "network", "sampler"], rows)


def _find(tree: Any, key: str) -> Any:
    """The value of `key` anywhere in nested dictionaries; None where it is not."""
    if not isinstance(tree, dict):
        return None
    found = (_find(value, key) for value in tree.values())
    return tree[key] if key in tree else next((x for x in found if x is not None), None)
