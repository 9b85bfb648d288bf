"""Configs as earlier versions stored them, brought up to date: readers of old files know no more.

`SCHEMA` grows with every change of what bundle.json or a run's config.json holds; the migration
from the version before is kept and tested.
"""

from collections.abc import Callable
from typing import Any

from phenaki.errors import UserError

SCHEMA = 2


def _from_1(config: dict[str, Any]) -> dict[str, Any]:
    """Before there were kernels, presets, sets of stills of their own, and other T5 encoders."""
    config = {"attention": "auto", "presets": {}} | config
    config["data"] = {"image_sources": ""} | config["data"]
    if config.get("text"):
        config["text"] = {"relpos_per_layer": False} | config["text"]
    return config


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}


def migrate(config: dict[str, Any], schema: int, where: object) -> dict[str, Any]:
    """`config` of version `schema`, stored at `where`, as this version stores it.

    Raises:
        UserError: a newer version wrote it.
    """
    if schema > SCHEMA:
        raise UserError(
            f"{where}: has schema {schema}, of a newer version of phenaki; this one reads up to "
            f"{SCHEMA}."
        )
    for version in range(schema, SCHEMA):
        config = MIGRATIONS[version](config)
    return config
