"""Migrations of stored configs: brings those of earlier versions up to the current schema.

`SCHEMA` grows with every change of what bundle.json or a run's config.json contains. The migration
from each earlier schema is kept and tested, so that no other module knows of old formats.
"""

from collections.abc import Callable, Mapping
from typing import Any

from phenaki.errors import UserError, one_of
from phenaki.schema.check import check, check_whole

SCHEMA = 3
# What a config trains -> the script that trains it.
KINDS = {
    "tokenizer": "scripts/train_cvivit.py",
    "maskgit": "scripts/train_maskgit.py",
    "critic": "scripts/train_critic.py",
}


def with_kind(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The config `fields` with "kind"; derived from their sections where they have none."""
    kind = "critic" if "critic" in fields else "maskgit" if "model" in fields else "tokenizer"
    return {"kind": kind, **fields}


def of_kind(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The config `fields` with "kind", which must be `kind`.

    Raises:
        UserError: it is another one, named with the script that trains it; or a field is unknown,
            missing or cannot be meant (`phenaki.schema`).
    """
    fields = with_kind(fields)
    script = one_of("config.kind", fields["kind"], KINDS)
    if fields["kind"] != kind:
        raise UserError(
            f"config.kind={fields['kind']!r} must be {kind!r} for {KINDS[kind]}; {script} trains "
            "this config."
        )
    check_whole(kind, fields)
    return fields


def _from_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Adds the attention implementation, presets, image sources; relative positions to T5's."""
    fields = {"attention": "auto", "presets": {}} | fields
    fields["data"] = {"image_sources": ""} | fields["data"]
    text = fields.get("text")
    if text and text["vocabulary"] != "bytes" and not text["vocabulary"].startswith("labels:"):
        fields["text"] = {"relpos_per_layer": False} | text
    return fields


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1, 2: with_kind}


def migrate(fields: Any, schema: Any, where: object) -> dict[str, Any]:
    """The config `fields`, stored at `where` with `schema`, in the current schema.

    Raises:
        UserError: a newer version of phenaki wrote it, or a value cannot be meant.
    """
    if type(schema) is not int or not 1 <= schema or not isinstance(fields, dict):
        raise UserError(f"{where}: has no config of phenaki (schema {schema!r}).")
    if schema > SCHEMA:
        raise UserError(
            f"{where}: has schema {schema}, of a newer version of phenaki; this one reads up to "
            f"{SCHEMA}."
        )
    try:
        for version in range(schema, SCHEMA):
            fields = MIGRATIONS[version](fields)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{where}: its config is damaged ({error!r}).") from error
    check(fields, str(where))
    return fields
