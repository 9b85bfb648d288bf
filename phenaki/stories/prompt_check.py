"""Prompt accuracy of a story's windows, for models of moving shapes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from phenaki.data.shapes.world import World, palette
from phenaki.evaluation import alignment
from phenaki.evaluation.alignment import ATTRIBUTES, Prompts


def parse_prompt(world: World, prompt: str | None) -> Prompts | None:
    """The combination that a prompt ends with; None if it lacks a colour, shape or direction."""
    words = (prompt or "").replace(",", " ").split()
    found = []
    for names in (palette(world), world.shapes, world.directions):
        named = [names.index(word) for word in words if word in names]
        if not named:
            return None
        found.append(named[-1])  # "a red circle moves up, then a blue circle moves up"
    return Prompts([str(prompt)], np.array([found]))


def check_window(
    world: World,
    frames: Float[np.ndarray, "f h w 3"],
    before: Float[np.ndarray, "h w 3"] | None,
    prompt: str | None,
) -> dict[str, bool] | None:
    """Whether a window's new frames obey its prompt, by attribute; None for other prompts.

    `before` is the last frame of the window before, from which the first step of a movement starts.
    An object that rests at the wall that it was sent to is right, too. "all" is the conjunction of
    the others but "identity", which is stricter: colour and shape are right in every new frame.
    """
    prompts = parse_prompt(world, prompt)
    if prompts is None:
        return None
    video = frames if before is None else np.concatenate([before[None], frames])
    new = slice(None) if before is None else slice(1, None)
    looks = alignment.verdict(world, video[None], prompts, new, walls=True)
    moves = alignment.verdict(world, video[None], prompts, walls=True)
    right = {name: bool(getattr(looks, name)[0]) for name in ("colour", "shape", "present")}
    right["direction"] = bool(moves.direction[0])
    return right | {"all": all(right.values()), "identity": bool(looks.identity[0])}


def accuracy(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    """The fraction of windows that are right, by attribute."""
    return {name: float(np.mean([v[name] for v in verdicts])) for name in ATTRIBUTES}
