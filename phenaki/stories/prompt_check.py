"""Prompt accuracy of a story's windows, for models of moving shapes."""

import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from phenaki.data.shapes.world import World, palette
from phenaki.evaluation import alignment, two_objects
from phenaki.evaluation.alignment import ATTRIBUTES, Prompts


def parse_prompt(world: World, prompt: str | None) -> Prompts | None:
    """The combination that a prompt ends with; None if it lacks a colour, shape or direction."""
    combination = _last(world, prompt or "")
    return None if combination is None else Prompts([str(prompt)], np.array([combination]))


def parse_pair(world: World, prompt: str | None) -> two_objects.Prompts | None:
    """The combinations of "a red circle moves left and a blue square moves right".

    None if there are not two, each with a colour of its own, shape and direction.
    """
    found = [_last(world, part) for part in re.split(r"\band\b", prompt or "")]
    if len(found) != 2 or found[0] is None or found[1] is None or found[0][0] == found[1][0]:
        return None
    return two_objects.Prompts([str(prompt)], (np.array(found[:1]), np.array(found[1:])))


def _last(world: World, text: str) -> list[int] | None:
    words = text.replace(",", " ").split()
    found = []
    for names in (palette(world), world.shapes, world.directions):
        named = [names.index(word) for word in words if word in names]
        if not named:
            return None
        found.append(named[-1])  # "a red circle moves up, then a blue circle moves up"
    return found


def check_window(
    world: World,
    frames: Float[np.ndarray, "f h w 3"],
    before: Float[np.ndarray, "h w 3"] | None,
    prompt: str | None,
) -> dict[str, bool] | None:
    """Whether a window's new frames obey its prompt, by attribute; None for other prompts.

    `before` is the last frame of the window before, from which the first step of a movement starts.
    An object that rests at the wall that it was sent to is right, too. "all" is the conjunction of
    the others but "identity", which is stricter: colour and shape are right in every new frame. Of
    two objects an attribute is right where it is of both.
    """
    judge: Any
    if pair := parse_pair(world, prompt):
        judge = functools.partial(two_objects.verdict, world, prompts=pair, walls=True)
    elif one := parse_prompt(world, prompt):
        judge = functools.partial(alignment.verdict, world, prompts=one, walls=True)
    else:
        return None
    video = (frames if before is None else np.concatenate([before[None], frames]))[None]
    looks = judge(video=video, frames=slice(None) if before is None else slice(1, None))
    moves = judge(video=video)
    right = {name: bool(getattr(looks, name)[0]) for name in ("colour", "shape", "present")}
    right["direction"] = bool(moves.direction[0])
    return right | {"all": all(right.values()), "identity": bool(looks.identity[0])}


def accuracy(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    """The fraction of windows that are right, by attribute."""
    return {name: float(np.mean([v[name] for v in verdicts])) for name in ATTRIBUTES}
