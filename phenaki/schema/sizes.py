"""Checks that the sizes of a network fit each other, before it is built."""

import math
from collections.abc import Mapping
from typing import Any

from phenaki.errors import UserError
from phenaki.schema import networks

PATH = "config.tokenizer"
PER_FRAME = ("vit_vqgan", "conv_vqgan")


def check_heads(path: str, fields: Mapping[str, Any]) -> None:
    """Raises `UserError` if the width of the transformer at `path` is no multiple of its heads."""
    width, heads = fields["width"], fields["heads"]
    if width % heads:
        nearest = max(round(width / heads), 1) * heads
        raise UserError(
            f"{path}.width={width} must be a multiple of heads={heads}; nearest is {nearest}."
        )


def check_tokenizer(fields: Mapping[str, Any]) -> None:
    """Checks `config.tokenizer`, whose single values obey their rules.

    Raises:
        UserError: a field of another network, or none of its own; or sizes that do not fit.
    """
    name = fields["name"]
    _check_names(name, fields)
    if "heads" in fields:
        check_heads(PATH, fields)
    time, *space = fields["patch"]
    if name in PER_FRAME and time != 1:
        raise UserError(f"{PATH}.patch[0]={time} must be 1: {name} tokenizes each frame alone.")
    if "strides" in fields:
        _check_levels(name, fields)
        product = [math.prod(fields["strides"])] * 2
        if space != product:
            raise UserError(
                f"{PATH}.patch={tuple(fields['patch'])} must have the product of {PATH}.strides="
                f"{tuple(fields['strides'])} as rows and columns; nearest is {(time, *product)}."
            )


def _check_names(name, fields):
    own = networks.SIZES[name]
    for field in fields:
        if not networks.has_size(name, field):
            owners = [one for one, sizes in networks.SIZES.items() if field in sizes]
            raise UserError(
                f"{PATH}.{field}={fields[field]}: is of {' and '.join(owners) or 'no network'}; "
                f"{name} has {', '.join(own)}."
            )
    for field in own:
        if field not in fields:
            words = networks.TOKENIZER[field].rule.words()
            raise UserError(f"{PATH}.{field}: is missing; {name} needs it: {words}.")


def _check_levels(name, fields):
    """Sizes of the convolutional networks: a number for each level."""
    widths = "multipliers" if "multipliers" in fields else "widths"
    levels, strides, blocks = len(fields[widths]), fields["strides"], fields["blocks"]
    if len(strides) != levels - 1:
        raise UserError(
            f"{PATH}.strides={tuple(strides)}: must be {levels - 1} numbers, one between each two "
            f"of the {levels} levels of {PATH}.{widths}={tuple(fields[widths])}."
        )
    if name == "conv_vqgan" and not isinstance(blocks, int):
        raise UserError(
            f"{PATH}.blocks={tuple(blocks)}: must be one number for all levels of {name}; nearest "
            f"is {max(blocks)}."
        )
    if name == "conv3d_vqgan":
        given = (blocks,) if isinstance(blocks, int) else tuple(blocks)
        if isinstance(blocks, int) or len(given) != levels:
            raise UserError(
                f"{PATH}.blocks={blocks if isinstance(blocks, int) else given}: must be {levels} "
                f"numbers, one for each level of {PATH}.{widths}; nearest is "
                f"{(given + given[-1:] * levels)[:levels]}."
            )
    if "groups" in fields:
        for multiplier in fields["multipliers"]:
            if (channels := fields["filters"] * multiplier) % fields["groups"]:
                raise UserError(
                    f"{PATH}.groups={fields['groups']}: must divide the channels of every level; "
                    f"one has {channels} ({PATH}.filters x {multiplier}), nearest is "
                    f"{math.gcd(channels, fields['groups'])}."
                )
