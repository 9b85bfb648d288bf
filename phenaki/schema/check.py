"""Checks configs against their fields, before anything is built from them."""

from collections.abc import Iterator, Mapping
from typing import Any

from phenaki.errors import UserError, did_you_mean
from phenaki.schema import networks
from phenaki.schema.config import KINDS, STORED
from phenaki.schema.rules import Field

ALL: Mapping[str, Field] = {**STORED, **KINDS["critic"], **KINDS["maskgit"], **KINDS["tokenizer"]}
_SECTIONS = {path[:dot] for path in ALL for dot in range(len(path)) if path[dot] == "."}
# Fields with a default: they came later, or concern a part of all configs only.
_OPTIONAL = {
    "kind",
    "attention",
    "mesh.sequence",
    "mesh.slices",
    "optim.name",
    "tokenizer.quantizer",
    "features.i3d_size",
    "train.from_step",
    "data.image_sources",
    "data.captions",
    "text.relpos_per_layer",
    "model.position_init",
}
_SAMPLER = ("sample.steps", "sample.choice_temperature", "sample.guidance", "sample.context")
_LABELS = ("text.vocabulary", "text.length", "text.width", "text.cached")


def check(fields: Mapping[str, Any], where: str = "") -> None:
    """Checks every value of the plain config `fields` that has a rule.

    `where` is the file that it was read from. Fields without a rule are of other versions.

    Raises:
        UserError: by the path of the field, with the rule and the nearest good value.
    """
    start = f"{where}: " if where else ""
    # First those that others refer to, as the decay of small presets to the number of steps.
    for path, value in sorted(_leaves(fields), key=lambda leaf: not leaf[0].startswith("train.")):
        name = _rule_of(path)
        if name in _SECTIONS:
            if not (isinstance(value, Mapping) or (value is None and _may_lack(path))):
                raise UserError(f"{start}config.{path}={value!r} must be a section of fields.")
        elif name in ALL and not (value is None and path.startswith("sample.continued.")):
            if wrong := ALL[name].rule.wrong(value):
                raise UserError(start + wrong.sentence(f"config.{path}"))


def check_whole(kind: str, fields: Mapping[str, Any]) -> None:
    """Checks a config of `kind` that something is to be built from: it has every field, no other.

    Raises:
        UserError: see `check`; or a field is missing or unknown.
    """
    check(fields)
    # That of a run has sections of its tokenizer or generator besides, and their fingerprint.
    allowed = KINDS[kind].keys() if not STORED.keys() & fields.keys() else ALL.keys()
    given = {path for path, _ in _leaves(fields)}
    for path in sorted(given):
        if _rule_of(path) not in {*allowed, *STORED} | _SECTIONS:
            known = [name for name in (*KINDS[kind], *STORED) if "NAME" not in name]
            hint = did_you_mean(path, known).replace("mean ", "mean config.")
            raise UserError(f"config.{path}: no such field{hint or '; see docs/config.md'}.")
    for path in _required(kind, fields):
        if path not in given:
            raise UserError(f"config.{path}: is missing; it must be {ALL[path].rule.words()}.")


def _leaves(fields: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every field, and of every section that has none or is not one."""
    for key, value in fields.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _rule_of(path: str) -> str:
    """The path under which the rules of a field are: presets have names of their own."""
    section, _, rest = path.partition(".")
    if section == "presets" and rest:
        _, dot, field = rest.partition(".")
        return f"presets.NAME{dot}{field}"
    return path


def _may_lack(path: str) -> bool:
    return path == "text"  # None: a model without text


def _required(kind: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """The paths that a config of `kind` must have, in order."""
    text = fields.get("text")
    labels = isinstance(text, Mapping) and str(text.get("vocabulary")).startswith("labels:")
    for path in KINDS[kind]:
        section, _, name = path.partition(".")
        optional = path in _OPTIONAL or section == "presets" or path.startswith("data.world.")
        optional |= section == "sample" and path not in _SAMPLER
        optional |= section == "text" and (text is None or (labels and path not in _LABELS))
        network = fields.get("tokenizer", {}).get("name")
        optional |= section == "tokenizer" and not networks.has_size(network, name)
        if not optional:
            yield path
